#include "bench/report/charts.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace pnode::bench {
namespace {

constexpr double width = 720, height = 380, left = 80, right = 200, top = 40, bottom = 50;
constexpr const char* colours[] = {"#0b6e99", "#d1495b", "#edae49", "#00798c",
                                   "#6b4c9a", "#66a182", "#8d5524"};

std::string format(const char* pattern, double value) {
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, pattern, value);
    return buffer;
}

// 1234567 -> "1.2M"
std::string brief(double value) {
    if (value >= 1e6) return format("%.3gM", value / 1e6);
    if (value >= 1e3) return format("%.3gk", value / 1e3);
    return format("%.3g", value);
}

std::string text_at(double x, double y, const std::string& anchor, const std::string& words,
                    const std::string& more = "") {
    return "<text x=\"" + format("%.1f", x) + "\" y=\"" + format("%.1f", y) + "\" text-anchor=\"" + anchor +
           "\"" + more + ">" + escaped(words) + "</text>\n";
}

std::string line_between(double x1, double y1, double x2, double y2, const std::string& colour) {
    return "<line x1=\"" + format("%.1f", x1) + "\" y1=\"" + format("%.1f", y1) + "\" x2=\"" +
           format("%.1f", x2) + "\" y2=\"" + format("%.1f", y2) + "\" stroke=\"" + colour + "\"/>\n";
}

std::string begin_svg(const std::string& title, double svg_height) {
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + format("%.0f", width) + " " +
           format("%.0f", svg_height) + "\" width=\"" + format("%.0f", width) + "\" height=\"" +
           format("%.0f", svg_height) +
           "\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\">\n<title>" + escaped(title) +
           "</title>\n" + text_at(width / 2, 20, "middle", title, " font-size=\"15\"");
}

// From values to places on the paper.
class Scale {
  public:
    explicit Scale(const Chart& chart) : log_y_(chart.log_y) {
        for (const Series& series : chart.series)
            for (const auto& [x, y] : series.points) {
                x_low_ = std::min(x_low_, x);
                x_high_ = std::max(x_high_, x);
                y_low_ = std::min(y_low_, y);
                y_high_ = std::max(y_high_, y);
            }
        if (log_y_) {
            y_low_ = std::pow(10, std::floor(std::log10(std::max(y_low_, 1e-9))));
            y_high_ = std::pow(10, std::ceil(std::log10(std::max(y_high_, 1e-9))));
        } else {
            y_low_ = 0;
        }
        if (y_high_ <= y_low_) y_high_ = log_y_ ? y_low_ * 10 : y_low_ + 1;
    }
    bool is_empty() const { return x_high_ < x_low_; }
    double x(double value) const {
        const double share = x_high_ > x_low_ ? (value - x_low_) / (x_high_ - x_low_) : 0.5;
        return left + share * (width - left - right);
    }
    double y(double value) const {
        const double share = log_y_ ? std::log(std::max(value, y_low_) / y_low_) / std::log(y_high_ / y_low_)
                                    : (value - y_low_) / (y_high_ - y_low_);
        return height - bottom - share * (height - top - bottom);
    }
    std::vector<double> y_ticks() const {
        std::vector<double> ticks;
        if (log_y_)
            for (double tick = y_low_; tick <= y_high_ * 1.001; tick *= 10) ticks.push_back(tick);
        else
            for (int part = 0; part <= 5; ++part) ticks.push_back(y_low_ + (y_high_ - y_low_) * part / 5);
        return ticks;
    }

  private:
    bool log_y_;
    double x_low_ = 1e300, x_high_ = -1e300, y_low_ = 1e300, y_high_ = -1e300;
};

std::string axes(const Chart& chart, const Scale& scale) {
    std::string svg;
    for (const double tick : scale.y_ticks()) {
        svg += line_between(left, scale.y(tick), width - right, scale.y(tick), "#ddd");
        svg += text_at(left - 6, scale.y(tick) + 4, "end", brief(tick));
    }
    std::vector<std::pair<double, std::string>> labels = chart.x_labels;
    if (labels.empty())
        for (const auto& [x, unused] : chart.series.front().points) labels.emplace_back(x, format("%g", x));
    for (const auto& [x, label] : labels) svg += text_at(scale.x(x), height - bottom + 18, "middle", label);
    svg += line_between(left, height - bottom, width - right, height - bottom, "#333");
    svg += line_between(left, top, left, height - bottom, "#333");
    svg += text_at((left + width - right) / 2, height - 8, "middle", chart.x_title);
    return svg + text_at(16, (top + height - bottom) / 2, "middle", chart.y_title,
                         " transform=\"rotate(-90 16 " + format("%.0f", (top + height - bottom) / 2) + ")\"");
}

std::string curve(const Series& series, const Scale& scale, std::size_t number) {
    const std::string colour = colours[number % std::size(colours)];
    std::string svg = "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" + colour + "\" points=\"";
    for (const auto& [x, y] : series.points)
        svg += format("%.1f", scale.x(x)) + "," + format("%.1f", scale.y(y)) + " ";
    svg += "\"/>\n";
    for (const auto& [x, y] : series.points)
        svg += "<circle cx=\"" + format("%.1f", scale.x(x)) + "\" cy=\"" + format("%.1f", scale.y(y)) +
               "\" r=\"3\" fill=\"" + colour + "\"/>\n";
    const double at = top + 12 + 18 * static_cast<double>(number);
    return svg + line_between(width - right + 12, at - 4, width - right + 32, at - 4, colour) +
           text_at(width - right + 38, at, "start", series.name);
}

}  // namespace

std::string escaped(const std::string& text) {
    std::string safe;
    for (const char letter : text) switch (letter) {
            case '&':
                safe += "&amp;";
                break;
            case '<':
                safe += "&lt;";
                break;
            case '>':
                safe += "&gt;";
                break;
            case '"':
                safe += "&quot;";
                break;
            default:
                safe += letter;
        }
    return safe;
}

std::string line_chart(const Chart& chart) {
    const Scale scale(chart);
    std::string svg = begin_svg(chart.title, height);
    if (scale.is_empty()) return svg + text_at(width / 2, height / 2, "middle", "not measured") + "</svg>\n";
    svg += axes(chart, scale);
    for (std::size_t i = 0; i < chart.series.size(); ++i) svg += curve(chart.series[i], scale, i);
    return svg + "</svg>\n";
}

// A name stands right of its spot, or left of it where it would leave the paper.
std::string scatter_chart(const std::string& title, const std::string& x_title, const std::string& y_title,
                          const std::vector<Spot>& spots) {
    constexpr double edge = 30, letter = 6, tall = 520;
    std::string svg = begin_svg(title, tall);
    if (spots.empty()) return svg + text_at(width / 2, tall / 2, "middle", "not measured") + "</svg>\n";
    double x_high = 0, y_high = 0;
    for (const Spot& spot : spots) {
        x_high = std::max(x_high, spot.x * 1.05);
        y_high = std::max(y_high, spot.y * 1.05);
    }
    const auto x_at = [&](double x) { return left + x / x_high * (width - left - edge); };
    const auto y_at = [&](double y) { return tall - bottom - y / y_high * (tall - bottom - top); };
    for (int part = 0; part <= 5; ++part) {
        const double x = x_high * part / 5, y = y_high * part / 5;
        svg += line_between(left, y_at(y), width - edge, y_at(y), "#ddd");
        svg += text_at(left - 6, y_at(y) + 4, "end", brief(y));
        svg += text_at(x_at(x), tall - bottom + 18, "middle", brief(x));
    }
    svg += line_between(left, tall - bottom, width - edge, tall - bottom, "#333");
    svg += line_between(left, top, left, tall - bottom, "#333");
    svg += text_at((left + width - edge) / 2, tall - 8, "middle", x_title);
    svg += text_at(16, (top + tall - bottom) / 2, "middle", y_title,
                   " transform=\"rotate(-90 16 " + format("%.0f", (top + tall - bottom) / 2) + ")\"");
    for (const Spot& spot : spots) {
        const double x = x_at(spot.x), y = y_at(spot.y);
        const bool fits = x + 8 + letter * static_cast<double>(spot.name.size()) < width;
        svg += "<circle cx=\"" + format("%.1f", x) + "\" cy=\"" + format("%.1f", y) + "\" r=\"4\" fill=\"" +
               colours[spot.colour % std::size(colours)] + "\"/>\n";
        svg += text_at(fits ? x + 7 : x - 7, y + 4, fits ? "start" : "end", spot.name, " font-size=\"10\"");
    }
    return svg + "</svg>\n";
}

std::string bar_chart(const std::string& title, const std::string& value_title,
                      const std::vector<Bar>& bars) {
    constexpr double row = 22, labels = 190;
    const double tall = top + row * static_cast<double>(std::max<std::size_t>(bars.size(), 1)) + 30;
    std::string svg = begin_svg(title, tall);
    if (bars.empty()) svg += text_at(width / 2, top + 14, "middle", "not measured");
    double largest = 0;
    for (const Bar& bar : bars) largest = std::max(largest, bar.value);
    for (std::size_t i = 0; i < bars.size(); ++i) {
        const double y = top + row * static_cast<double>(i);
        const double length = largest > 0 ? bars[i].value / largest * (width - labels - 80) : 0;
        svg += text_at(labels - 8, y + 14, "end", bars[i].label);
        svg += "<rect x=\"" + format("%.0f", labels) + "\" y=\"" + format("%.1f", y + 3) + "\" width=\"" +
               format("%.1f", length) + "\" height=\"15\" fill=\"" + colours[0] + "\"/>\n";
        svg += text_at(labels + length + 6, y + 14, "start", format("%.0f", bars[i].value));
    }
    return svg + text_at(width / 2, tall - 8, "middle", value_title) + "</svg>\n";
}

}  // namespace pnode::bench
