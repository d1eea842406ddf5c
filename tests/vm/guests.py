"""The guests: what machine each is, and what runs in it."""
import dataclasses
import re
import shlex

CPUS = 2
MIB = 1 << 20

# A machine with two kinds of memory beside its own:
#   - 256 MiB that the firmware calls special purpose: /dev/dax0.0, which would be node 1;
#   - node 2 without CPUs, 384 MiB. HMAT tells both nodes' latency and bandwidth.
# The kernel's memmap= says of the first what real firmware says in the memory map. Below 4 GiB lies node 0 alone.
DEVICE_START = 4096 * MIB
DEVICE_BYTES = 256 * MIB
DEVICE_LATENCY_NS = 400
DEVICE_BANDWIDTH_MBPS = 15360
NODE_LATENCY_NS = 250
NODE_BANDWIDTH_MBPS = 30720
TIERS = f"""
-M q35,hmat=on,max-ram-below-4g=2G -m 2688M
-object memory-backend-ram,id=m0,size=2048M -object memory-backend-ram,id=m1,size=256M -object memory-backend-ram,id=m2,size=384M
-numa node,nodeid=0,cpus=0-{CPUS - 1},memdev=m0 -numa node,nodeid=1,memdev=m1,initiator=0 -numa node,nodeid=2,memdev=m2,initiator=0
-numa dist,src=0,dst=1,val=30 -numa dist,src=0,dst=2,val=20 -numa dist,src=1,dst=2,val=40
-numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=100
-numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=61440M
-numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency={DEVICE_LATENCY_NS}
-numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth={DEVICE_BANDWIDTH_MBPS}M
-numa hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access-latency,latency={NODE_LATENCY_NS}
-numa hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access-bandwidth,bandwidth={NODE_BANDWIDTH_MBPS}M
"""
PLAIN = "-M q35 -m 3G"


@dataclasses.dataclass
class Program:
    name: str
    command: str  # the first word is a program of the build folder
    environment: str = ""
    seconds_max: int = 400
    has_report: bool = True
    proves: tuple = ()  # tests that must pass here
    says: tuple = ()  # patterns that it must print
    before: str = ""  # in the guest's shell

    def line(self, build):
        words = [f"{build}/{self.command.format(build=build)}"]
        if self.has_report:
            words.append(f"--gtest_output=xml:/results/{self.name}.xml")
        environment = self.environment.format(build=build)
        return f"{self.before}\nprogram {self.name} {self.seconds_max} env {environment} {' '.join(words)}"

    def binaries(self, build):
        """Every word that is a program of the build folder."""
        words = shlex.split(self.command.format(build=build))
        return [f"{build}/{words[0]}"] + [word for word in words if word.startswith(f"{build}/")]


@dataclasses.dataclass
class Guest:
    machine: str
    programs: tuple
    modules: tuple = ()
    kernel_arguments: str = ""
    before: str = ""  # in the guest's shell, before the programs
    libraries: tuple = ()  # that programs load by name
    seconds_max: int = 800
    cpus: int = CPUS

    @property
    def arguments(self):
        return self.machine.split()

    def binaries(self, build):
        programs = [name for program in self.programs for name in program.binaries(build)]
        return sorted({*programs, *(f"{build}/{name}" for name in self.libraries)})

    def script(self, build):
        return "\n".join([self.before, *(program.line(build) for program in self.programs)]) + "\n"


OF_THE_MACHINE = "PNODE_TEST_DAX=dax:/dev/dax0.0 PNODE_TEST_NUMA=numa:2"

# What takes most of a minute under emulation, and does not ask what kind of memory it is on: once, on the node.
SLOW = "*C06_*:*C10_*:*C23_*:*C29_*"

# A program that is preloaded, its heap on the node or on a range of the device.
def preloaded(kind, spec, says):
    return Program(f"run-{kind}", f"bin/pnode run --verbose --near 2M --activation 1M --node {spec} -- "
                   "{build}/bin/malloc_test --gtest_filter=*FourTimesTheNearLimit*", has_report=False,
                   says=(rf"active in process \d+: .* node {re.escape(spec)}, ", r"\[  PASSED  \] 1 test", *says))


REGIONS = (
    Program("probe", "bin/pnode probe", has_report=False,
            says=(rf"(?s)align bytes +2\.0 MiB\s+bytes max +256\.0 MiB\s+kind +dax\s+numa node +1\s+"
                  rf"read bandwidth mbps +{DEVICE_BANDWIDTH_MBPS}\s+read latency ns +{DEVICE_LATENCY_NS}\s+"
                  rf"resource +{DEVICE_START:#x}\s+spec +dax:/dev/dax0\.0",
                  rf"(?s)kind +numa\s+numa node +2\s+read bandwidth mbps +{NODE_BANDWIDTH_MBPS}\s+read latency ns +{NODE_LATENCY_NS}\s")),
    Program("regions", "bin/test_cxl", OF_THE_MACHINE,
            proves=("DaxOfTheMachine.*", "NumaOfTheMachine.*")),
    preloaded("dax", "dax:/dev/dax0.0:32M+64M", ()),
    preloaded("numa", "numa:2:64M", ("pnode: node 2 is open to ordinary allocations too: ",)),
)
CONTRACT_NUMA = (
    Program("contract-numa", f"bin/contract_test --gtest_filter=-{SLOW}", "PNODE_STRESS=0 PNODE_TEST_NODES=numa:2", seconds_max=700,
            proves=("Contract.C27_MemoryThatTheKernelFindsBadCostsThePagesOnIt", "Contract.C27_BadMemoryUnderANearPageIsTheProgramsToSee")),
)
CONTRACT_SLOW = (
    Program("contract-slow", f"bin/contract_test --gtest_filter={SLOW}", "PNODE_STRESS=0 PNODE_TEST_NODES=numa:2", seconds_max=700),
)
CONTRACT_DAX = (
    # The contract's smallest node is 1 MiB, less than a device's usual alignment.
    Program("contract-dax", f"bin/contract_test --gtest_filter=-{SLOW}", "PNODE_STRESS=0 PNODE_TEST_NODES=dax:/dev/dax0.0", before="align_dax dax0.0 4096",
            seconds_max=700),
)

# What is worth a boot in every run of the tests. The smallest kernel has no memory_failure(): the bad_... tests are skipped there.
LEAN = (
    REGIONS[0],
    Program("regions", "bin/test_cxl --gtest_filter=DaxOfTheMachine.*:NumaOfTheMachine.*", OF_THE_MACHINE,
            proves=("DaxOfTheMachine.[!b]*", "NumaOfTheMachine.[!b]*")),
    Program("contract-dax", "bin/contract_test --gtest_filter=*C04_*:*C13_*:*C25_*:*C31_*", "PNODE_STRESS=0 PNODE_TEST_NODES=dax:/dev/dax0.0",
            before="align_dax dax0.0 4096", proves=("Contract.*", "Services.*")),
)

# Suites of the runtime, and programs under the preload library: on a kernel without UFFDIO_MOVE and UFFDIO_POISON, and on one
# that has them. Left out is what moves so many pages that emulation needs minutes for it.
RUNTIME = (
    Program("pages", "bin/runtime_pages_test", "PNODE_STRESS=0"),
    Program("mapping", "bin/runtime_mapping_test", "PNODE_STRESS=0"),
    Program("limits", "bin/runtime_limits_test --gtest_filter=*Lowering*:*ALimitGivenLater*:*Strict*:*Incompressible*", "PNODE_STRESS=0"),
    Program("api", "bin/runtime_api_test", "PNODE_STRESS=0"),
)
FAULTS = (
    Program("failures", "bin/runtime_failures_test --gtest_filter=-*WithoutFurtherThreads*", "PNODE_STRESS=0"),
    Program("fork", "bin/runtime_fork_test --gtest_filter=-*WhoseThreadsFaultAndDemote*", "PNODE_STRESS=0", seconds_max=600),
)
MODEL = (Program("model", "bin/runtime_model_test", "PNODE_STRESS=0 PNODE_OPS=200", seconds_max=500),)
UNDER_PRELOAD = "PNODE_ACTIVATION=1M PNODE_NEAR=8M LD_PRELOAD={build}/lib/libpnode-preload.so"
PRELOAD = (
    Program("preload-malloc", "bin/malloc_test", UNDER_PRELOAD),
    Program("preload-fork", "bin/fork_test --gtest_filter=-*WhileOtherThreads*:*MayStartThreads", UNDER_PRELOAD),
    Program("preload-mapping", "bin/mapping_test", UNDER_PRELOAD),
)
PRELOAD_LIBRARIES = ("lib/libpnode-preload.so",)


def with_tiers(programs):
    return Guest(machine=TIERS, programs=programs, libraries=PRELOAD_LIBRARIES, modules=("dax_hmem", "device_dax", "hwpoison-inject"),
                 kernel_arguments=f"memmap={DEVICE_BYTES}%{DEVICE_START:#x}-1+0xefffffff",
                 before="modules dax_hmem device_dax hwpoison-inject\nwait_for /dev/dax0.0\ndevdax dax0.0")


GUESTS = {
    "lean": with_tiers(LEAN),
    "regions": with_tiers(REGIONS),
    "contract-numa": with_tiers(CONTRACT_NUMA),
    "contract-slow": with_tiers(CONTRACT_SLOW),
    "contract-dax": with_tiers(CONTRACT_DAX),
    "runtime": Guest(machine=PLAIN, programs=RUNTIME),
    "faults": Guest(machine=PLAIN, programs=FAULTS),
    "model": Guest(machine=PLAIN, programs=MODEL),
    # Two processors interrupt each other for each page that leaves by write protection, and take minutes where one takes seconds.
    "preload": Guest(machine=PLAIN, programs=PRELOAD, libraries=PRELOAD_LIBRARIES, cpus=1),
}
