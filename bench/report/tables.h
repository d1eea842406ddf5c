// Rows as tables: which columns there are is said once, for Markdown and HTML alike.
#pragma once

#include <string>
#include <vector>

#include "bench/report/results.h"

namespace pnode::bench {

struct Table {
    std::string title;
    std::vector<std::string> columns;
    std::vector<std::vector<std::string>> rows;
};

// The tables of a run; none for a program that is not known.
std::vector<Table> tables_of(const Run& run);

std::string markdown(const Table& table);
// "Machine: ...; kernel ...; options ..."
std::string conditions(const Run& run);

// `document` with what lies between "<!-- pnode bench SUITE -->" and the next "<!-- end -->" replaced by the
// suite's tables ("aims": by those of all); suites that did not run keep theirs. Throws std::runtime_error
// for a mark without an end.
std::string with_tables(const std::string& document, const std::vector<Run>& runs);

}  // namespace pnode::bench
