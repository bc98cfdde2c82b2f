#!/usr/bin/env bash
# A task of a Dask cluster on Fargate, from its start to its end; the client puts the values in.
set -Eeuo pipefail
export AWS_DEFAULT_REGION=@REGION@ OMP_NUM_THREADS=1

# What an image of your own has already.
for program in python@PYTHON@ aws find flock; do
    command -v "$program" >/dev/null || { dnf install --quiet --assumeyes python@PYTHON@ awscli-2 findutils util-linux; break; }
done
aws s3 cp --quiet @BOOTSTRAP@ /tmp/bootstrap.sh
bash /tmp/bootstrap.sh @WHEELHOUSE@ /opt/fruits python@PYTHON@

host=$(/opt/fruits/bin/python -c 'import socket; print(socket.gethostbyname(socket.gethostname()))')
exec /opt/fruits/bin/python -m backends.aws.ec2.dask_node @SECRETS@ "$host" @WORDS@
