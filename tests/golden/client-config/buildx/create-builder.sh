#!/bin/sh
# Makes the builder and takes it as the default.
set -e
docker buildx create --name goldsmith --driver docker-container --use \
  --driver-opt 'env.http_proxy=http://127.0.0.1:9' \
  --driver-opt 'env.https_proxy=http://127.0.0.1:9' \
  --driver-opt 'env.no_proxy=mirror.example:5000' \
  --buildkitd-config buildkitd.toml
echo "then: export EXPERIMENTAL_BUILDKIT_SOURCE_POLICY=$PWD/source-policy.json"
