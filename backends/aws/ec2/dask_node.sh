#!/usr/bin/env bash
# A machine of a Dask cluster on EC2, from its first start to its end; the client puts the values in.
set -Eeuo pipefail
# Whatever happens, the machine ends itself: on shutdown it is terminated.
trap 'shutdown -h now' EXIT

work=$(mktemp -d)
export AWS_DEFAULT_REGION=@REGION@ HOME=$work OMP_NUM_THREADS=1
command -v python@PYTHON@ >/dev/null || dnf install --quiet --assumeyes python@PYTHON@ # from AWS' own repository, in S3
aws s3 cp --quiet @BOOTSTRAP@ "$work/bootstrap.sh"
bash "$work/bootstrap.sh" @WHEELHOUSE@ /opt/fruits python@PYTHON@

token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
host=$(curl -sf -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/local-ipv4)
/opt/fruits/bin/python -m backends.aws.ec2.dask_node @SECRETS@ "$host" @ARGUMENTS@
