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

// Points with their names beside them, on axes that begin at 0.
struct Spot {
    std::string name;
    double x = 0, y = 0;
    std::size_t colour = 0;
};
std::string scatter_chart(const std::string& title, const std::string& x_title, const std::string& y_title,
                          const std::vector<Spot>& spots);

// For text inside HTML and SVG.
std::string escaped(const std::string& text);

}  // namespace pnode::bench
