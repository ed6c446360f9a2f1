#!/bin/sh
# Asks a Ray process on this machine whether it serves, as Kubernetes' gRPC probes do: ray-health.sh PORT
# (of the head's GCS, or of a node's raylet: --node-manager-port). It needs neither token nor ray[default].
set -eu
printf '\0\0\0\0\0' | curl --silent --max-time 5 --http2-prior-knowledge --data-binary @- \
    --header 'content-type: application/grpc' --header 'te: trailers' \
    "http://127.0.0.1:$1/grpc.health.v1.Health/Check" | od -An -tx1 | grep -q '00 00 00 00 02 08 01'
