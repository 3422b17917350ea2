#include "shoal/pool/progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

namespace shoal {
namespace {

// The last column stays free: written to, some terminals go to the next line.
std::size_t columns() {
  winsize size = {};
  const bool known =
      ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return (known ? size.ws_col : 80) - 1;
}

bool begins_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xc0) != 0x80;  // of UTF-8
}
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, begins_character));
}

// Exactly so many columns of it.
std::string fit(std::string_view text, std::size_t columns) {
  std::string fitting;
  std::size_t used = 0;
  for (const char byte : text) {
    if (begins_character(byte) && used++ == columns) return fitting;
    fitting += byte;
  }
  return fitting + std::string(columns - used, ' ');
}

std::string right(std::size_t number, std::size_t width) {
  const std::string text = std::to_string(number);
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

}  // namespace

ProgressBar::ProgressBar(std::string title, std::size_t total)
    : title_(std::move(title)),
      total_(total),
      shown_(isatty(STDERR_FILENO) == 1),
      drawn_(std::chrono::steady_clock::now()) {
  if (shown_) draw();
}

ProgressBar::~ProgressBar() {
  if (!shown_) return;
  if (done_ >= total_ && std::uncaught_exceptions() == exceptions_)
    dprintf(STDERR_FILENO, "\n");
  else
    dprintf(STDERR_FILENO, "\r%*s\r", static_cast<int>(columns()), "");
}

void ProgressBar::update(std::size_t done) {
  done = std::min(done, total_);
  if (!shown_ || done == done_) return;
  done_ = done;
  const auto now = std::chrono::steady_clock::now();
  if (done_ < total_ && now < drawn_ + kPause) return;
  drawn_ = now;
  draw();
}

// Each line covers the one before it: no control sequence is needed.
void ProgressBar::draw() const {
  constexpr std::size_t kNarrowest = 8;
  const std::size_t all = columns();
  const double part =
      total_ == 0 ? 1
                  : static_cast<double>(done_) / static_cast<double>(total_);
  const std::string total = std::to_string(total_);
  const std::string numbers = right(done_, total.size()) + '/' + total + ' ' +
                              right(static_cast<std::size_t>(100 * part), 3) +
                              " %";
  const std::size_t taken = width(title_) + numbers.size() + 4;  // " [] "
  std::string line;
  if (taken + kNarrowest > all) {
    line = fit(numbers + ' ' + title_, all);
  } else {
    const std::size_t room = all - taken;
    const auto full =
        static_cast<std::size_t>(part * static_cast<double>(room));
    line = title_ + " [" + fit(std::string(full, '#'), room) + "] " + numbers;
  }
  dprintf(STDERR_FILENO, "\r%s", line.c_str());
}

}  // namespace shoal
