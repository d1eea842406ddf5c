#!/bin/sh
# A `pnode` that tiers nothing: drops `run` and its options, runs the program. The demonstration must not call that a success.
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
