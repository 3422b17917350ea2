// examples/identifiers against a slow model, and over trees made for it.

#include "shoal/examples/identifiers.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "gtest/gtest.h"

namespace identifiers {
namespace {

namespace fs = std::filesystem;
using Model = std::map<std::string, std::uint64_t>;

// [A-Za-z_][A-Za-z0-9_]*, to the letter.
Model model_of(const std::string& text) {
  static const std::string kDigits = "0123456789";
  static const std::string kStart =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
  Model model;
  std::size_t at = 0;
  while ((at = text.find_first_of(kStart, at)) != std::string::npos) {
    const std::size_t end = text.find_first_not_of(kStart + kDigits, at);
    ++model[text.substr(at, end - at)];
    at = end;
  }
  return model;
}

Model as_model(const Counts& counts) {
  Model model;
  for (const Word& word : counts.words) {
    const std::string name(counts.name(word));
    EXPECT_TRUE(model.emplace(name, word.count).second) << name << " twice";
  }
  return model;
}

std::string random_text(std::mt19937& random, std::size_t size) {
  static const std::string kCharacters =
      std::string("aaaaaabbbZ_019 \n\t+-\"") + '\0' + '\x80' + '\xff';
  std::uniform_int_distribution<std::size_t> pick(0, kCharacters.size() - 1);
  std::string text(size, ' ');
  for (char& c : text) c = kCharacters[pick(random)];
  return text;
}

class IdentifiersTest : public testing::Test {
 protected:
  IdentifiersTest() {
    std::string name = testing::TempDir() + "/identifiers.XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    root_ = fs::canonical(name);
  }
  ~IdentifiersTest() override { fs::remove_all(root_); }

  std::string write(const std::string& name, const std::string& text = "x") {
    const fs::path path = root_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path.native();
  }
  // Below the root, separated by blanks.
  std::string found(const std::vector<std::string>& directories) {
    std::string names;
    for (const File& file : find_files(directories))
      names += fs::path(file.path).lexically_relative(root_).native() + " ";
    return names;
  }
  std::string refusal(const std::string& directory) {
    try {
      find_files({directory});
    } catch (const NoInput& error) {
      return error.what();
    }
    return "none";
  }
  std::string root() const { return root_.native(); }

  fs::path root_;
};

TEST_F(IdentifiersTest, CountsWhatTheExpressionMatches) {
  const std::string texts[] = {
      "",
      "9",
      "9abc",  // as grep -o: abc
      "0x1F 1e5 _9 __ a",
      "ends_with_the_file",
      "eight_by eight_bytes nine_byte_ sixteen_bytes_16 seventeen_bytes17",
      "int main() { return 0; }  // int is a word in a comment, too\n",
      std::string("a\0b\0a", 5),
      "na\xc3\xafve",
  };
  for (const std::string& text : texts)
    EXPECT_EQ(as_model(count({write("a.c", text)})), model_of(text)) << text;
}

TEST_F(IdentifiersTest, CountsRandomText) {
  std::mt19937 random(1);
  for (std::size_t size = 0; size < 200; ++size) {
    const std::string text = random_text(random, size);
    ASSERT_EQ(as_model(count({write("a.c", text)})), model_of(text)) << text;
  }
  // Larger than the first buffer and the first table.
  const std::string text = random_text(random, 500'000);
  EXPECT_EQ(as_model(count({write("a.c", text)})), model_of(text));
}

TEST_F(IdentifiersTest, CountsALongName) {
  const std::string name(300'000, 'n');
  const Counts counts = count({write("a.c", name + " " + name + "m")});
  EXPECT_EQ(as_model(counts), (Model{{name, 1}, {name + "m", 1}}));
}

TEST_F(IdentifiersTest, MergedBatchesAreTheWhole) {
  std::mt19937 random(2);
  std::string everything;
  for (int i = 0; i < 100; ++i) {
    const std::string text = random_text(random, random() % 3000) + "\n";
    write("f" + std::to_string(i) + ".h", text);
    everything += text;
  }
  const std::vector<File> files = find_files({root()});
  std::vector<Counts> parts;
  for (const Batch& batch : make_batches(files, 7))
    parts.push_back(count(batch));
  const Counts merged = merge(parts);
  EXPECT_EQ(as_model(merged), model_of(everything));
  EXPECT_EQ(merged.files, 100u);
  EXPECT_EQ(merged.bytes, everything.size());
}

TEST_F(IdentifiersTest, RanksByCountThenName) {
  const Counts counts = count({write("a.c", "b a c c b a d c")});
  const Ranked expected = {{"c", 3}, {"a", 2}, {"b", 2}, {"d", 1}};
  EXPECT_EQ(ranked(counts), expected);
}

TEST_F(IdentifiersTest, BatchesHoldEachFileOnceInOrder) {
  std::vector<File> files;
  for (std::uint64_t i = 0; i < 1000; ++i)
    files.push_back({std::to_string(i), i * i % 9973});
  for (const std::size_t wanted : {1u, 2u, 7u, 64u, 999u, 1000u, 5000u}) {
    const std::vector<Batch> batches = make_batches(files, wanted);
    EXPECT_LE(batches.size(), wanted);
    EXPECT_GE(batches.size(), std::min<std::size_t>(wanted, 1000) / 2);
    std::size_t next = 0;
    for (const Batch& batch : batches) {
      EXPECT_FALSE(batch.empty());
      for (const std::string& path : batch) ASSERT_EQ(path, files[next++].path);
    }
    EXPECT_EQ(next, files.size());
  }
}

TEST_F(IdentifiersTest, FindsByExtensionInOrderOfPath) {
  for (const char* name :
       {"z.h", "b/a.hh", "b/c/d.hpp", "e.hxx", "f.ipp", "g.c", "h.cc", "i.cpp",
        "j.cxx", "no.H", "no.hpp~", "no.py", "noh", "k.tar.h"})
    write(name);
  fs::create_directory(root_ / "directory.h");
  EXPECT_EQ(found({root()}),
            "b/a.hh b/c/d.hpp e.hxx f.ipp g.c h.cc i.cpp j.cxx k.tar.h z.h ");
}

TEST_F(IdentifiersTest, DirectoriesThatOverlapCountOnce) {
  write("a/x.h");
  write("a/b/y.h");
  EXPECT_EQ(found({root() + "/a/b", root() + "/a", root() + "/a/../a/"}),
            "a/b/y.h a/x.h ");
}

TEST_F(IdentifiersTest, FollowsNoLinksButThoseGiven) {
  write("real/x.h");
  fs::create_symlink("x.h", root_ / "real/link.h");
  fs::create_symlink("nowhere", root_ / "real/dangling.h");
  fs::create_directory_symlink(".", root_ / "real/loop");
  fs::create_directory_symlink("real", root_ / "given");
  EXPECT_EQ(found({root() + "/real"}), "real/x.h ");
  EXPECT_EQ(found({root() + "/given"}), "real/x.h ");
}

TEST_F(IdentifiersTest, RefusesWhatItCannotSee) {
  write("only/text.txt");
  const std::string missing = root() + "/missing";
  const std::string file = root() + "/only/text.txt";
  const std::string closed = root() + "/closed";
  EXPECT_EQ(refusal(missing), missing + ": No such file or directory");
  EXPECT_EQ(refusal(file), file + ": Not a directory");
  EXPECT_EQ(refusal(root()), root() + ": no C or C++ files");
  if (geteuid() == 0) return;  // may read every directory
  write("closed/x.h");
  fs::permissions(closed, fs::perms::none);
  EXPECT_EQ(refusal(root()), closed + ": Permission denied");
  fs::permissions(closed, fs::perms::owner_all);
}

TEST_F(IdentifiersTest, SkipsWhatCannotBeRead) {
  const std::string stays = write("a.h", "stays");
  const std::string goes = write("b.h", "goes");
  std::vector<File> files = find_files({root()});
  fs::remove(goes);
  const std::vector<std::string> skipped = {goes +
                                            ": No such file or directory"};

  const Counts counts = count({stays, goes});
  EXPECT_EQ(as_model(counts), (Model{{"stays", 1}}));
  EXPECT_EQ(counts.files, 1u);
  EXPECT_EQ(counts.skipped, skipped);
  EXPECT_EQ(merge({counts, counts}).skipped.size(), 2u);

  EXPECT_EQ(read_once(files), skipped);
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].path, stays);
}

}  // namespace
}  // namespace identifiers
