"""Programs that make a large output of a large input: it must be the same to the last byte, with pnode and without."""
import os
import subprocess

import packages
import suite
from pieces import Piece

JAVA = """\
import java.util.*;
import java.util.concurrent.*;
public class Work {
    static long mix(long x) { x ^= x >>> 33; x *= 0xff51afd7ed558ccdL; x ^= x >>> 29; return x; }
    public static void main(String[] a) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Long>> parts = new ArrayList<>();
        for (int part = 0; part < 8; ++part) {
            final long seed = part;
            parts.add(pool.submit(() -> {
                TreeMap<String, byte[]> map = new TreeMap<>();
                long sum = 0;
                for (long i = 0; i < 60000; ++i) {
                    byte[] bytes = new byte[(int) (mix(i ^ seed) & 255)];
                    Arrays.fill(bytes, (byte) i);
                    map.put("key" + mix(i * 31 + seed), bytes);
                    if (i % 5 == 0) map.pollFirstEntry();
                }
                for (Map.Entry<String, byte[]> e : map.entrySet()) sum = mix(sum + e.getKey().hashCode() + Arrays.hashCode(e.getValue()));
                return sum;
            }));
        }
        for (Future<Long> part : parts) System.out.println(part.get());
        pool.shutdown();
    }
}
"""

# Each writes its result to standard output. $UNDER runs a program as the mode has it. A collector that goes over a heap of 256 MiB again
# and again needs some of it near; what touches its heap at random gets less of it (and less near), or it faults for a quarter of an hour, and
# an hour under stress.
SCRIPTS = {
    "gcc -O2 of SQLite in one file": 'sed "s/__DATE__/0/;s/__TIME__/0/" "$SQLITE/sqlite3.c" >one.c; $UNDER gcc -O2 -frandom-seed=1 -c one.c -o one.o; cat one.o',
    "g++ -O2 of the standard library's headers": 'printf "#include <bits/stdc++.h>\\n#include <regex>\\nbool f(std::string s)'
                                                '{return std::regex_match(s,std::regex(s));}\\n" >two.cpp; '
                                                '$UNDER g++ -O2 -frandom-seed=1 -c two.cpp -o two.o; cat two.o',
    "sort of the package catalogue": "LC_ALL=C $UNDER sort --parallel=2 -S 100M catalogue",
    "xz -9 of the package catalogue": "head -c 2000000 catalogue | $UNDER xz -9 -c",
    "zstd -19 of the package catalogue": "head -c 4000000 catalogue | $UNDER zstd -19 -c -T2",
    "perl: words counted": "head -c 20000000 catalogue | $UNDER /usr/bin/perl -ne '$n{$_}++ for split; END { print qq($_ $n{$_}\\n) for sort keys %n }'",
    "python: words counted, JSON and back": "$UNDER /usr/bin/python3 -c '\n"
        "import json, collections\n"
        "n = collections.Counter(open(\"catalogue\", errors=\"replace\").read(20000000).split())\n"
        "t = json.dumps(n, sort_keys=True)\n"
        "assert json.loads(t) == n\n"
        "print(t)'",
    "awk: lines by length": "$UNDER awk '{ a[NR] = $0; n[length($0)]++ } END { for (i = 1; i <= NR; i += 7) print a[i]; for (i = 0; i < 3000; i++) "
                            "if (i in n) print i, n[i] }' catalogue",
    "git: add, repack, fsck": "export PNODE_NEAR=4M; rm -rf tree; mkdir tree; cd tree; git init -q .; split -n l/300 ../catalogue part.; "
                              "$UNDER git add . && GIT_COMMITTER_DATE=2020-01-01T00:00:00Z git -c user.name=x -c user.email=x -c commit.gpgsign=false commit -qm x --date=2020-01-01T00:00:00Z && "
                              "$UNDER git repack -adfq --threads=2 && $UNDER git fsck --full --strict && git rev-parse HEAD^{tree} && $UNDER git archive HEAD",
    "java: sorted maps in four threads": "PNODE_NEAR=64M $UNDER java -Xmx256m -XX:+UseSerialGC -XX:-UseCompressedOops Work.java",
    "java: the same with G1": "PNODE_NEAR=64M $UNDER java -Xmx256m -XX:+UseG1GC -XX:-UseCompressedOops Work.java",
    "rocksdb: fill, overwrite, read and verify": "rm -rf db; export PNODE_NEAR=4M; $UNDER db_bench --db=db --num=40000 --value_size=200 --write_buffer_size=4194304 --seed=7 --threads=1 "
        "--benchmarks=fillrandom,overwrite,deleterandom,compact,readrandom,seekrandom,verifychecksum --verify_checksum=1 "
        "--disable_wal=1 --compression_type=lz4 >db.log 2>&1 || { cat db.log; exit 1; }; $UNDER ldb --db=db scan --hex",
}

# Under stress a page is near for a moment only: what goes over its memory in order takes minutes then, what hashes takes hours.
STRESSED = ("sort of the package catalogue", "awk: lines by length", "git: add, repack, fsck", "java: sorted maps in four threads")


def prepare(folder):
    source = packages.fetch_source("sqlite3", folder, like="sqlite3")
    if not os.path.exists(f"{source}/sqlite3.c"):
        architecture = packages.checked(["dpkg-architecture", "-qDEB_HOST_MULTIARCH"]).strip()
        packages.checked(["sh", "./configure", f"--with-tcl=/usr/lib/{architecture}/tcl8.6"], cwd=source)
        packages.checked(["make", "sqlite3.c"], cwd=source)
    if not os.path.exists(f"{folder}/catalogue"):
        with open(f"{folder}/catalogue", "wb") as file:
            subprocess.run(["apt-cache", "dumpavail"], stdout=file, check=True)
    with open(f"{folder}/Work.java", "w", encoding="utf-8") as file:
        file.write(JAVA)
    return "of Debian"


# What is made plainly is right.
COMPARED = """\
set -euo pipefail
if [[ -n $SUITE_PNODE ]]; then made=under.out; else made=plain.out; fi
( {script} ) >"$OUT/$made"
cmp "$OUT/plain.out" "$OUT/$made"
"""


def pieces(folder):
    source = packages.fetch_source("sqlite3", folder)
    made = []
    for name, script in SCRIPTS.items():
        output = f"{folder}/{name.replace('/', ' ')}"
        os.makedirs(output, exist_ok=True)
        made.append(Piece(name, ["bash", "-c", COMPARED.replace("{script}", script)], lambda _, code, name=name: {name: code == 0},
                          seconds_max=1800, folder=folder, may_fail_at_times=False, under_stress=name in STRESSED,
                          environment={"UNDER": suite.UNDER, "SQLITE": source, "OUT": output, "SUITE_CHILDREN": "1"}))
    return made


SUITES = [suite.Suite("same-bytes", "gcc, sort, xz, zstd, perl, python, awk, git, java, RocksDB",
                      ["build-essential", "dpkg-dev", "tcl-dev", "sqlite3", "git", "xz-utils", "zstd", "rocksdb-tools", "default-jdk-headless"],
                      "32M", prepare, pieces)]
