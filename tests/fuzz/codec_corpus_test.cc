// The fuzzer's seeds, and what becomes of them by chance, in the default tests.

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/codec_cases.h"

namespace {

using shoal::fuzz::run;
using shoal::fuzz::Seed;
using Input = std::vector<std::uint8_t>;

bool run(const Input& input) { return run(input.data(), input.size()); }

std::string read(const std::string& name) {
  std::ifstream file(
      std::string(getenv("TEST_SRCDIR")) + "/shoal/tests/fuzz/corpus/" + name,
      std::ios::binary);
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

// They lie in segments and files of other builds: the bytes must not change
// without anybody noticing.
TEST(Corpus, SeedsAreWhatIsWrittenToday) {
  for (const auto& [name, bytes] : shoal::fuzz::seeds())
    EXPECT_EQ(read(name), std::string(bytes.begin(), bytes.end()))
        << name << ": run //tests/fuzz:write_corpus if this is on purpose";
}

TEST(Corpus, SeedsAreAccepted) {
  for (const auto& [name, bytes] : shoal::fuzz::seeds())
    EXPECT_TRUE(run(bytes)) << name;
}

TEST(Corpus, TruncatedSeedsAreNot) {
  for (const auto& [name, bytes] : shoal::fuzz::seeds())
    for (std::size_t size = 1; size < bytes.size(); ++size)
      EXPECT_FALSE(
          run(Input(bytes.begin(), bytes.begin() + static_cast<long>(size))))
          << name << " " << size;
}

class Mutator {
 public:
  explicit Mutator(const std::vector<Seed>& seeds) : seeds_(seeds) {}

  Input next(const Input& seed) {
    Input input = seed;
    for (unsigned changes = 1 + below(3); changes > 0; --changes) change(input);
    return input;
  }

 private:
  unsigned below(std::size_t n) { return static_cast<unsigned>(random_() % n); }
  // The first byte, which is the type, stays.
  std::size_t place(const Input& input) {
    return input.size() < 2 ? 1 : 1 + below(input.size() - 1);
  }
  Input::iterator at(Input& input, std::size_t place) {
    return input.begin() + static_cast<long>(place);
  }
  void change(Input& input) {
    const std::size_t where = place(input);
    switch (below(6)) {
      case 0:
        if (where < input.size()) input[where] = byte();
        break;
      case 1:
        input.insert(at(input, where), 1 + below(9), byte());
        break;
      case 2:
        input.resize(where);
        break;
      case 3: {  // a part of another seed
        const Input& other = seeds_[below(seeds_.size())].bytes;
        const std::size_t from = place(other);
        input.insert(
            at(input, where),
            other.begin() + static_cast<long>(std::min(from, other.size())),
            other.end());
        break;
      }
      case 4: {  // a part again
        const Input part(at(input, where), input.end());
        input.insert(input.end(), part.begin(), part.end());
        break;
      }
      case 5:
        input.erase(at(input, where),
                    at(input, std::min(where + below(9), input.size())));
        break;
    }
    if (input.size() > 1024) input.resize(1024);
  }
  std::uint8_t byte() {
    return static_cast<std::uint8_t>(below(2) == 0 ? below(4) : below(256));
  }

  const std::vector<Seed>& seeds_;
  std::mt19937 random_{1};
};

TEST(Corpus, ChangedSeedsDoNoHarm) {
  const std::vector<Seed> seeds = shoal::fuzz::seeds();
  Mutator mutator(seeds);
  int accepted = 0, refused = 0;
  for (int i = 0; i < 400; ++i)
    for (const Seed& seed : seeds)
      ++(run(mutator.next(seed.bytes)) ? accepted : refused);
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 500);
}

}  // namespace
