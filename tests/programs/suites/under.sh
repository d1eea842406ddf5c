#!/bin/sh
# under.sh PROGRAM ARGUMENTS...: runs a program as the suite's mode has it: under `pnode run`, whose options are in the environment,
# or, where SUITE_PNODE names no command, plainly. Each process leaves its statistics in a file of its own.
[ -n "$SUITE_PNODE" ] || exec "$@"
exec env PNODE_STATS="$SUITE_STATS/$$.json" "$SUITE_PNODE" run -- "$@"
