// Charts as inline SVG: no script, no style sheet, nothing from outside.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace pnode::bench {

struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points;  // x ascending, both finite
};

struct Chart {
    std::string title, x_title, y_title;
    std::vector<Series> series;
    bool log_y = false;
    // x of a point -> what the axis says there; empty: the values themselves.
    std::vector<std::pair<double, std::string>> x_labels;
};

// Lines with a mark at each point. A chart without points says so.
std::string line_chart(const Chart& chart);

struct Bar {
    std::string label;
    double value = 0;
};
std::string bar_chart(const std::string& title, const std::string& value_title, const std::vector<Bar>& bars);

// For text inside HTML and SVG.
std::string escaped(const std::string& text);

}  // namespace pnode::bench
