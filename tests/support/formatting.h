#pragma once
// Formatting: a thread that makes streams, under a global locale of its own,
// with which each takes a lock of libstdc++. The locale stays.

#include <atomic>
#include <locale>
#include <sstream>
#include <thread>

namespace shoal::support {

class Formatting {
 public:
  Formatting() {
    std::locale::global(std::locale(std::locale(), new std::numpunct<char>));
    thread_ = std::thread([this] {
      while (!over_) const std::ostringstream stream;
    });
  }
  Formatting(const Formatting&) = delete;
  Formatting& operator=(const Formatting&) = delete;
  ~Formatting() {
    over_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> over_{false};
  std::thread thread_;
};

}  // namespace shoal::support
