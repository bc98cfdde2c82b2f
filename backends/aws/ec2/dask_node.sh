#!/usr/bin/env bash
# User data of an instance of a Dask cluster on EC2. The client replaces the names between "@" signs.
set -Eeuo pipefail
# Shut down on any exit, and at the latest after some hours: the instance is terminated on shutdown.
trap 'shutdown -h now' EXIT
shutdown -h +@MINUTES@

work=$(mktemp -d)
export AWS_DEFAULT_REGION=@REGION@ HOME=$work OMP_NUM_THREADS=1 PYTHONSAFEPATH=1
command -v python@PYTHON@ >/dev/null || dnf install --quiet --assumeyes python@PYTHON@ # from the AWS repository in S3
aws s3 cp --quiet @BOOTSTRAP@ "$work/bootstrap.sh"
bash "$work/bootstrap.sh" @WHEELHOUSE@ /opt/fruits python@PYTHON@

token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
host=$(curl -sf -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/local-ipv4)
/opt/fruits/bin/python -m backends.aws.ec2.dask_node @SECRETS@ "$host" @ARGUMENTS@
