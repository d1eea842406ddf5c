// The `pnode` command. Everything after "--" belongs to the program that is run and is never looked at here.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "runtime/options/options.h"
#include "tools/bench.h"
#include "tools/probe.h"
#include "tools/program.h"
#include "tools/run.h"
#include "tools/say.h"

namespace pnode::tools {
namespace {

std::string help_of_run() {
    return "Runs a program with its cold memory compressed in a private node.\n\n"
           "Usage: pnode run [OPTIONS] -- PROGRAM [ARGUMENTS]\n\n"
           "Options (each may also be given as the variable in brackets):\n" +
           options_help() + "  -h, --help            Print this and exit.\n\n" +
           "SIZE takes K, M, G, T, or % of the memory the program may use.\n";
}

// The values given for one option of `pnode run`, checked and turned into variables. False after one line on
// standard error.
bool take_option(const OptionSpec& spec, const CLI::Option& given, RunRequest* request) {
    if (given.count() == 0) return true;
    const std::string flag = std::string("--") + spec.name;
    if (given.count() > 1) {
        say(flag + " is given " + std::to_string(given.count()) + " times: give it once");
        return false;
    }
    const std::string value = given.results().front();  // of a flag without a value: "true"
    Options checked = Options::defaults();
    std::string why;
    if (!parse_option(spec, value, &checked, &why)) {
        say(flag + " " + value + ": " + why);
        return false;
    }
    request->environment.emplace_back(spec.environment, value);
    return true;
}

class RunCommand {
  public:
    explicit RunCommand(CLI::App* app) : app_(app) {
        app_->formatter_fn(
            [](const CLI::App*, const std::string&, CLI::AppFormatMode) { return help_of_run(); });
        for (const OptionSpec& spec : option_table()) {
            const std::string flag = std::string("--") + spec.name;
            CLI::Option* const option =
                spec.type == OptionType::flag ? app_->add_flag(flag) : app_->add_option(flag);
            // Repetition is refused by name in take_option().
            options_.push_back(option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll));
        }
    }

    int run(std::vector<std::string> command) const {
        if (command.empty()) {
            say("no program to run: pnode run [OPTIONS] -- PROGRAM [ARGUMENTS]");
            return exit_usage;
        }
        RunRequest request;
        request.command = std::move(command);
        for (std::size_t index = 0; index < options_.size(); ++index) {
            if (!take_option(option_table()[index], *options_[index], &request)) return exit_usage;
        }
        if (given("stats-every") && !given("stats") && std::getenv("PNODE_STATS") == nullptr) {
            say("--stats-every has no file to rewrite: add --stats FILE");
            return exit_usage;
        }
        return tools::run(request);
    }

  private:
    bool given(const char* name) const { return app_->count(std::string("--") + name) > 0; }

    CLI::App* app_;
    std::vector<CLI::Option*> options_;  // in the order of the table
};

// What is left over where `run` takes options only: an option it does not have, or a program that lacks its
// "--".
std::string stray_words(const std::string& stray) {
    if (stray.starts_with("-")) return "there is no option " + stray;
    return stray + " is not expected here: the program and its arguments come after --";
}

// CLI11's errors, each made one line that names the cure.
int usage_error(const CLI::App& app, const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success))
        return app.exit(error);  // --help, --version
    std::string line = error.what();
    const std::vector<std::string> strays = app.remaining(true);
    if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
        line = line.substr(0, line.find(':')) + " needs one value";
    } else if (!strays.empty()) {
        line = app.get_subcommand("run")->parsed() ? stray_words(strays.front())
                                                   : strays.front() + " is not known to pnode";
    }
    say(line + " (see pnode --help)");
    return exit_usage;
}

// Takes "-- PROGRAM ARGUMENTS" off the end of `arguments`.
std::vector<std::string> split_command(std::vector<std::string>* arguments) {
    const auto mark = std::find(arguments->begin(), arguments->end(), "--");
    if (mark == arguments->end()) return {};
    std::vector<std::string> command(mark + 1, arguments->end());
    arguments->erase(mark, arguments->end());
    return command;
}

int main_of(std::vector<std::string> arguments) {
    CLI::App app{"A private compressed memory node for one process."};
    app.name("pnode");
    app.set_version_flag("--version", "pnode " PNODE_VERSION_TEXT);
    app.require_subcommand(1);
    CLI::App* const run_app = app.add_subcommand("run", "Run a program with its cold memory compressed");
    const RunCommand run_command(run_app);
    CLI::App* const probe_app =
        app.add_subcommand("probe", "Say what this machine offers, and how to get what it lacks");
    bool as_json = false;
    probe_app->add_flag("--json", as_json, "One JSON object");
    // For the help: pnode-bench has its own options, so this is decided before anything is parsed.
    app.add_subcommand("bench",
                       "Compare tiers and codecs on this machine; writes tables and a page; `bench codec "
                       "[FILE|PID]`: which codec to use");
    CLI::App* const options_app = app.add_subcommand("options")->group("");  // hidden: feeds the documents
    bool as_markdown = false;
    options_app->add_flag("--markdown", as_markdown, "A table for the documents")->required();

    if (!arguments.empty() && arguments.front() == "bench")
        return bench({arguments.begin() + 1, arguments.end()});
    std::vector<std::string> command = split_command(&arguments);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    try {
        app.parse(std::move(arguments));
    } catch (const CLI::ParseError& error) {
        return usage_error(app, error);
    }
    if (run_app->parsed()) return run_command.run(std::move(command));
    if (!command.empty()) {
        say("only pnode run takes a program after --");
        return exit_usage;
    }
    if (probe_app->parsed()) return probe(as_json);
    std::fputs(options_markdown().c_str(), stdout);
    return 0;
}

}  // namespace
}  // namespace pnode::tools

int main(int argc, char** argv) {
    try {
        return pnode::tools::main_of(std::vector<std::string>(argv + 1, argv + argc));
    } catch (const std::exception& error) {
        pnode::tools::say(error.what());
        return 1;
    }
}
