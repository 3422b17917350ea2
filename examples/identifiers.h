#pragma once
// Identifiers in C and C++ files, found and counted: the work that word_count
// and tour give to a pool. Nothing in here knows that there is one.
//
//   auto files = identifiers::find_files({"/usr/include"});
//   std::vector<identifiers::Counts> parts;
//   for (const auto& batch : identifiers::make_batches(files, 64))
//     parts.push_back(identifiers::count(batch));       // or pool.map(count,
//     …)
//   identifiers::Counts all = identifiers::merge(parts);
//   for (auto [name, n] : identifiers::ranked(all)) ...
//
// An identifier is what grep -o '[A-Za-z_][A-Za-z0-9_]*' prints: abc in 9abc,
// x1F in 0x1F, also in comments and strings.

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace identifiers {

// There is nothing to count, or not all of it can be seen; the text says where.
struct NoInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct File {
  std::string path;
  std::uint64_t bytes;
};

// The C and C++ files (.h .hh .hpp .hxx .ipp .c .cc .cpp .cxx) below the
// directories, ordered by path, each once. Links are not followed, but a
// directory given may be one. Throws NoInput: a directory is missing or cannot
// be read, there are no such files.
std::vector<File> find_files(const std::vector<std::string>& directories);

// Reads each file once, so that whoever reads it next finds it in the page
// cache. Removes from `files` what cannot be read and returns it, as count()
// does.
std::vector<std::string> read_once(std::vector<File>& files);

using Batch = std::vector<std::string>;  // paths

// `count` (at least 1) or fewer groups of neighbours, of about equal work, none
// empty, in the order of `files`.
std::vector<Batch> make_batches(const std::vector<File>& files,
                                std::size_t count);

// What travels back from a worker: an aggregate of vectors and strings, which
// costs a few copies however many names are in it.
struct Word {
  std::uint64_t count;
  std::uint64_t hash;
  std::uint64_t begin;  // of its name in Counts::names
  std::uint64_t length;
};
struct Counts {
  std::string names;  // one behind the other
  std::vector<Word> words;
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::vector<std::string> skipped;  // "path: reason", could not be read

  std::string_view name(const Word& word) const {
    return {names.data() + word.begin, word.length};
  }
};

Counts count(const Batch& paths);
Counts merge(const std::vector<Counts>& parts);

// Most frequent first, equally frequent ones by name. Views into `counts`.
using Ranked = std::vector<std::pair<std::string_view, std::uint64_t>>;
Ranked ranked(const Counts& counts);

}  // namespace identifiers
