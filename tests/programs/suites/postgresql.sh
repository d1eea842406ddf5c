#!/bin/sh
# postgresql.sh BINARIES PG_REGRESS TESTS FOLDER: a new cluster, its server under under.sh, and the regression tests against it.
set -eu
binaries=$1 regress=$2 tests=$3 folder=$4
under=$(dirname "$(readlink -f "$0")")/under.sh
data=$(mktemp -d "$folder/cluster.XXXXXX")
export LC_ALL=C TZ=UTC

"$under" "$binaries/initdb" --auth trust --username tester --no-sync --pgdata "$data" >"$data.log" 2>&1 || { cat "$data.log"; exit 1; }
echo "initdb: done"
"$under" "$binaries/postgres" -D "$data" -k "$data" -c listen_addresses= -c fsync=off >"$data.log" 2>&1 &
server=$!
trap 'kill -INT $server; wait $server; tail -n 50 "$data.log"' EXIT
tries=0
until "$binaries/pg_isready" --host "$data" --quiet; do
  tries=$((tries + 1))
  [ $tries -lt 600 ] || exit 1
  sleep 0.1
done
mkdir "$data.out"
cd "$tests"
"$regress" --host "$data" --user tester --inputdir . --outputdir "$data.out" --dlpath . --bindir "$binaries" \
  --max-concurrent-tests 20 --schedule parallel_schedule || { head -c 200000 "$data.out/regression.diffs"; exit 1; }
