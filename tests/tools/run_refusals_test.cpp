// Programs that no library can be preloaded into are refused before they run, each with one line that says
// why.
#include <elf.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/tools/command.h"

namespace pnode::test {
namespace {

constexpr int cannot_run = 126;
constexpr int not_found = 127;

#if defined(__x86_64__)
constexpr std::uint16_t our_machine = EM_X86_64;
constexpr std::uint16_t foreign_machine = EM_AARCH64;
#else
constexpr std::uint16_t our_machine = EM_AARCH64;
constexpr std::uint16_t foreign_machine = EM_X86_64;
#endif

class RunRefusals : public testing::Test {
  protected:
    RunRefusals() {
        std::string pattern = testing::TempDir() + "pnode-refusals-XXXXXX";
        folder = ::mkdtemp(pattern.data());
    }
    ~RunRefusals() override { std::filesystem::remove_all(folder); }

    std::string file(const std::string& name, const std::string& content, mode_t mode = 0755) {
        const std::string path = folder / name;
        std::ofstream(path, std::ios::binary) << content;
        EXPECT_EQ(::chmod(path.c_str(), mode), 0) << std::strerror(errno);
        return path;
    }

    // A program that could be run, with some mode.
    std::string copy_of_true(mode_t mode) {
        const std::string path = folder / "copy";
        std::filesystem::copy_file("/bin/true", path);
        EXPECT_EQ(::chmod(path.c_str(), mode), 0) << std::strerror(errno);
        return path;
    }

    static std::string elf(std::uint16_t machine, std::uint16_t type, unsigned char bits = ELFCLASS64,
                           std::uint16_t segments = 0) {
        Elf64_Ehdr header = {};
        std::memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = bits;
        header.e_machine = machine;
        header.e_type = type;
        header.e_phoff = sizeof header;
        header.e_phentsize = sizeof(Elf64_Phdr);
        header.e_phnum = segments;
        return std::string(reinterpret_cast<const char*>(&header), sizeof header);
    }

    static Outcome run(const std::string& program, Variables variables = {}) {
        return pnode_command({"run", "--", program}, std::move(variables));
    }

    std::filesystem::path folder;
};

TEST_F(RunRefusals, AProgramThatIsNowhere) {
    expect_refusal(run("no-such-program-as-this"), not_found, "is in no folder of PATH");
    expect_refusal(run(folder / "absent"), not_found, "No such file");
    expect_refusal(run(""), not_found, "empty");
}

TEST_F(RunRefusals, AFileThatIsNotExecutable) {
    file("plain", "#!/bin/sh\n", 0644);
    expect_refusal(run(folder / "plain"), cannot_run, "is not executable");
    expect_refusal(run("plain", {{"PATH", folder}}), cannot_run, "is not executable");
    expect_refusal(run(folder), cannot_run, "is not executable");
}

TEST_F(RunRefusals, AnExecutableFurtherDownPathIsFound) {
    file("later", "", 0644);
    std::filesystem::create_directory(folder / "second");
    file("second/later", "#!/bin/sh\necho found\n");
    EXPECT_EQ(run("later", {{"PATH", folder.string() + ":" + (folder / "second").string()}}).output,
              "found\n");
}

TEST_F(RunRefusals, AStaticProgram) {
    expect_refusal(run(file("static", elf(our_machine, ET_EXEC))), cannot_run, "statically linked");
}

TEST_F(RunRefusals, AStaticPositionIndependentProgram) {
    expect_refusal(run(file("static-pie", elf(our_machine, ET_DYN))), cannot_run, "statically linked");
}

TEST_F(RunRefusals, AnotherArchitecture) {
    expect_refusal(run(file("foreign", elf(foreign_machine, ET_EXEC))), cannot_run, "another architecture");
    expect_refusal(run(file("short", elf(EM_386, ET_EXEC, ELFCLASS32))), cannot_run, "another architecture");
}

TEST_F(RunRefusals, AnObjectFile) {
    expect_refusal(run(file("object", elf(our_machine, ET_REL))), cannot_run, "object file");
}

TEST_F(RunRefusals, AFileCutShort) {
    expect_refusal(run(file("header", elf(our_machine, ET_EXEC).substr(0, 20))), cannot_run, "cut short");
    expect_refusal(run(file("segments", elf(our_machine, ET_EXEC, ELFCLASS64, 9))), cannot_run, "cut short");
}

TEST_F(RunRefusals, NeitherElfNorScript) {
    expect_refusal(run(file("text", "echo hello\n")), cannot_run, "neither an ELF program nor a script");
    expect_refusal(run(file("empty", "")), cannot_run, "neither an ELF program nor a script");
}

TEST_F(RunRefusals, ASetuidProgram) {
    expect_refusal(run(copy_of_true(04755)), cannot_run, "is setuid");
}

TEST_F(RunRefusals, ASetgidProgram) {
    expect_refusal(run(copy_of_true(02755)), cannot_run, "is setgid");
}

TEST_F(RunRefusals, AProgramWithFileCapabilities) {
    const std::string path = copy_of_true(0755);
    // struct vfs_cap_data, revision 2, with cap_net_bind_service permitted and effective.
    const std::uint32_t capability[5] = {0x02000001, 1u << 10, 0, 0, 0};
    if (::setxattr(path.c_str(), "security.capability", capability, sizeof capability, 0) != 0) {
        GTEST_SKIP() << "file capabilities cannot be set here: " << std::strerror(errno);
    }
    expect_refusal(run(path), cannot_run, "file capabilities");
}

TEST_F(RunRefusals, AScriptIsJudgedByItsInterpreter) {
    const std::string fixed = file("static", elf(our_machine, ET_EXEC));
    expect_refusal(run(file("script", "#! " + fixed + " -x\n")), cannot_run,
                   "is a script: its interpreter " + fixed);
    expect_refusal(run(file("lost", "#!/nonexistent/interpreter\n")), not_found,
                   "its interpreter /nonexistent/interpreter");
    expect_refusal(run(file("none", "#!\n")), cannot_run, "without an interpreter");
    EXPECT_EQ(run(file("good", "#!/bin/sh\necho well\n")).output, "well\n");
}

TEST_F(RunRefusals, AScriptThatRunsItself) {
    const std::string path = folder / "loop";
    expect_refusal(run(file("loop", "#!" + path + "\n")), cannot_run, "too many scripts");
}

}  // namespace
}  // namespace pnode::test
