#!/bin/sh
# Stands in for docker-compose where the sample is checked.
echo "DOCKER_HOST: $DOCKER_HOST"
printf 'argument: %s\n' "$@"
echo "compose.sh: a test double, nothing is composed" >&2
exit 7
