#include "shoal/examples/identifiers.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace identifiers {
namespace {

namespace fs = std::filesystem;

std::string reason(int error) { return std::generic_category().message(error); }

// ---- finding ----

bool is_source(std::string_view name) {
  static constexpr std::string_view kSuffixes[] = {
      ".h", ".hh", ".hpp", ".hxx", ".ipp", ".c", ".cc", ".cpp", ".cxx"};
  return std::any_of(
      std::begin(kSuffixes), std::end(kSuffixes),
      [name](std::string_view suffix) { return name.ends_with(suffix); });
}

// What is in one directory; its own directories go to `pending`.
std::error_code list(const fs::path& directory, std::vector<File>& files,
                     std::vector<fs::path>& pending) {
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    // What vanishes while we look is as if it had never been there.
    std::error_code vanished;
    const fs::file_type type = entry->symlink_status(vanished).type();
    if (type == fs::file_type::directory) {
      pending.push_back(entry->path());
    } else if (type == fs::file_type::regular &&
               is_source(entry->path().native())) {
      const std::uintmax_t bytes = entry->file_size(vanished);
      if (!vanished) files.push_back({entry->path().native(), bytes});
    }
  }
  return error;
}

// ---- reading ----

class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// A file's contents, in memory that is used again for the next one.
class Contents {
 public:
  // 0 or the error.
  int read_file(const std::string& path) {
    size_ = 0;
    const Descriptor file(path);
    struct stat status = {};
    if (file.get() < 0 || fstat(file.get(), &status) != 0) return errno;
    // One more than there should be, to see the end at once.
    reserve(static_cast<std::size_t>(status.st_size) + 1);
    for (;;) {
      const ssize_t n =
          read(file.get(), bytes_.data() + size_, capacity() - size_);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      if (n == 0) return 0;
      size_ += static_cast<std::size_t>(n);
      if (size_ == capacity()) reserve(2 * size_);
    }
  }

  std::string_view view() const { return {bytes_.data(), size_}; }

  // Behind the end are zeros: the scanner stops at the first one, and hash()
  // loads whole words.
  void close_with_zeros() { std::memset(bytes_.data() + size_, 0, kMargin); }

 private:
  static constexpr std::size_t kMargin = sizeof(std::uint64_t);
  std::size_t capacity() const { return bytes_.size() - kMargin; }
  void reserve(std::size_t bytes) {
    if (bytes_.size() < bytes + kMargin) bytes_.resize(bytes + kMargin);
  }

  std::vector<char> bytes_ = std::vector<char>(1 << 16);
  std::size_t size_ = 0;
};

// ---- counting ----

enum : std::uint8_t { kNone = 0, kPart = 1, kStart = 2 };

constexpr std::array<std::uint8_t, 256> kClass = [] {
  std::array<std::uint8_t, 256> table{};
  for (unsigned c = 'a'; c <= 'z'; ++c) table[c] = kStart | kPart;
  for (unsigned c = 'A'; c <= 'Z'; ++c) table[c] = kStart | kPart;
  for (unsigned c = '0'; c <= '9'; ++c) table[c] = kPart;
  table['_'] = kStart | kPart;
  return table;
}();

std::uint8_t class_of(char c) { return kClass[static_cast<unsigned char>(c)]; }

// Eight bytes at a time; the last ones may reach beyond the name, into what
// Contents keeps behind the file, and are shifted out. Names of up to eight
// bytes and of equal length never share a hash: each step can be undone.
std::uint64_t hash(const char* name, std::size_t length) {
  constexpr std::uint64_t kMultiplier = 0x9e3779b97f4a7c15;
  const auto mix = [](std::uint64_t h, std::uint64_t word) {
    h = (h ^ word) * kMultiplier;
    return h ^ (h >> 32);
  };
  std::uint64_t h = length;
  std::uint64_t word;
  for (; length > sizeof word; length -= sizeof word, name += sizeof word) {
    std::memcpy(&word, name, sizeof word);
    h = mix(h, word);
  }
  std::memcpy(&word, name, sizeof word);
  h = mix(h, word << (64 - 8 * length));  // little-endian; length is 1 to 8
  return h;
}

// A hash table with open addressing over the words of a Counts.
class Counter {
 public:
  // Room for so many, so that nothing moves while they come.
  void reserve(std::size_t words, std::size_t name_bytes) {
    counts_.words.reserve(words);
    counts_.names.reserve(name_bytes);
    rehash(std::bit_ceil(std::max(slots_.size(), words + words / 2)));
  }

  void add(std::string_view name, std::uint64_t hash, std::uint64_t count) {
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    for (std::size_t at = hash & mask_;; at = (at + 1) & mask_) {
      Slot& slot = slots_[at];
      if (slot.word == kFree) {
        slot = {tag, static_cast<std::uint32_t>(counts_.words.size())};
        counts_.words.push_back(
            {count, hash, counts_.names.size(), name.size()});
        counts_.names.append(name);
        if (counts_.words.size() * 2 > slots_.size()) rehash(2 * slots_.size());
        return;
      }
      if (slot.tag != tag) continue;
      Word& word = counts_.words[slot.word];
      if (word.hash == hash && word.length == name.size() &&
          (name.size() <= sizeof hash ||
           std::memcmp(counts_.names.data() + word.begin, name.data(),
                       name.size()) == 0)) {
        word.count += count;
        return;
      }
    }
  }

  // Before add() of another name, so that the memory is near by then.
  void prefetch(std::uint64_t hash) const {
    __builtin_prefetch(&slots_[hash & mask_]);
  }

  // Of text that Contents::close_with_zeros() ended.
  void add_text(std::string_view text) {
    const char* at = text.data();
    const char* const end = at + text.size();
    for (;;) {
      while (at != end && !(class_of(*at) & kStart)) ++at;
      if (at == end) return;
      const char* const begin = at;
      while (class_of(*++at) & kPart) {
      }
      const auto length = static_cast<std::size_t>(at - begin);
      add({begin, length}, hash(begin, length), 1);
    }
  }

  Counts& counts() { return counts_; }

 private:
  static constexpr std::uint32_t kFree = ~std::uint32_t{0};
  struct Slot {
    std::uint32_t tag = 0;
    std::uint32_t word = kFree;
  };

  void rehash(std::size_t slots) {
    slots_.assign(slots, Slot());
    mask_ = slots_.size() - 1;
    std::uint32_t index = 0;
    for (const Word& word : counts_.words) {
      std::size_t at = word.hash & mask_;
      while (slots_[at].word != kFree) at = (at + 1) & mask_;
      slots_[at] = {static_cast<std::uint32_t>(word.hash >> 32), index++};
    }
  }

  Counts counts_;
  std::vector<Slot> slots_ = std::vector<Slot>(1 << 12);
  std::size_t mask_ = slots_.size() - 1;
};

}  // namespace

std::vector<File> find_files(const std::vector<std::string>& directories) {
  std::vector<File> files;
  for (const std::string& given : directories) {
    std::error_code error;
    const fs::path root = fs::canonical(given, error);
    if (error) throw NoInput(given + ": " + error.message());
    std::vector<fs::path> pending = {root};
    while (!pending.empty()) {
      const fs::path directory = std::move(pending.back());
      pending.pop_back();
      error = list(directory, files, pending);
      const bool vanished = error == std::errc::no_such_file_or_directory;
      if (error && !(vanished && directory != root))
        throw NoInput(directory.native() + ": " + error.message());
    }
  }
  const auto by_path = [](const File& a, const File& b) {
    return a.path < b.path;
  };
  const auto same_path = [](const File& a, const File& b) {
    return a.path == b.path;
  };
  std::sort(files.begin(), files.end(), by_path);
  files.erase(std::unique(files.begin(), files.end(), same_path), files.end());
  if (files.empty()) {
    std::string where;
    for (const std::string& given : directories)
      where += (where.empty() ? "" : ", ") + given;
    throw NoInput(where + ": no C or C++ files");
  }
  return files;
}

std::vector<std::string> read_once(std::vector<File>& files) {
  std::vector<std::string> skipped;
  Contents contents;
  std::erase_if(files, [&](const File& file) {
    const int error = contents.read_file(file.path);
    if (error != 0) skipped.push_back(file.path + ": " + reason(error));
    return error != 0;
  });
  return skipped;
}

std::vector<Batch> make_batches(const std::vector<File>& files,
                                std::size_t count) {
  constexpr std::uint64_t kOpen = 2048;  // bytes counted while one is opened
  std::uint64_t left = 0;
  for (const File& file : files) left += file.bytes + kOpen;
  std::vector<Batch> batches;
  std::uint64_t filled = 0, share = 0;
  for (const File& file : files) {
    if (filled >= share) {
      batches.emplace_back();
      left -= filled;
      filled = 0;
      share = left / (count - batches.size() + 1);
    }
    batches.back().push_back(file.path);
    filled += file.bytes + kOpen;
  }
  return batches;
}

Counts count(const Batch& paths) {
  Counter counter;
  Contents contents;
  for (const std::string& path : paths) {
    if (const int error = contents.read_file(path); error != 0) {
      counter.counts().skipped.push_back(path + ": " + reason(error));
      continue;
    }
    contents.close_with_zeros();
    counter.add_text(contents.view());
    counter.counts().files += 1;
    counter.counts().bytes += contents.view().size();
  }
  return std::move(counter.counts());
}

Counts merge(const std::vector<Counts>& parts) {
  constexpr std::size_t kAhead = 8;
  std::size_t words = 0, name_bytes = 0;
  for (const Counts& part : parts) {
    words += part.words.size();
    name_bytes += part.names.size();
  }
  Counter counter;
  counter.reserve(words, name_bytes);
  Counts& sum = counter.counts();
  for (const Counts& part : parts) {
    for (std::size_t i = 0; i < part.words.size(); ++i) {
      if (i + kAhead < part.words.size())
        counter.prefetch(part.words[i + kAhead].hash);
      const Word& word = part.words[i];
      counter.add(part.name(word), word.hash, word.count);
    }
    sum.files += part.files;
    sum.bytes += part.bytes;
    sum.skipped.insert(sum.skipped.end(), part.skipped.begin(),
                       part.skipped.end());
  }
  return std::move(sum);
}

Ranked ranked(const Counts& counts) {
  Ranked ranked;
  ranked.reserve(counts.words.size());
  for (const Word& word : counts.words)
    ranked.emplace_back(counts.name(word), word.count);
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  return ranked;
}

}  // namespace identifiers
