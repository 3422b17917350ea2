// Headers of NumPy files: what is written, what is read, and what is refused.

#include "shoal/shared/npy.h"

#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/errors.h"

namespace outside {

struct Body {
  double x, y;
  char name[8];
  std::int32_t id;
  std::array<float, 3> color;
  bool fixed;
};
SHOAL_FIELDS(Body, x, y, name, id, color, fixed)

}  // namespace outside

namespace {

using namespace shoal;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

struct Inner {
  short a;
  double b;
};
struct Outer {
  char c;
  Inner inner[2];
  std::array<std::array<int, 3>, 2> grid;
};
enum class Color : std::uint8_t { red };
class Opaque {
 public:
  int get() const { return x_; }

 private:
  int x_ = 0;
};

TEST(NpyType, OfCppTypes) {
  EXPECT_EQ(npy::describe(npy::dtype<double>()), "'<f8'");
  EXPECT_EQ(npy::describe(npy::dtype<Color>()), "'|u1'");
  EXPECT_EQ(npy::describe(npy::dtype<std::byte>()), "'|u1'");
  EXPECT_EQ(npy::describe(npy::dtype<std::complex<float>>()), "'<c8'");
  EXPECT_EQ(npy::describe(npy::dtype<Opaque>()), "'|V4'");
  EXPECT_EQ(npy::describe(npy::dtype<Inner>()),
            "[('f0', '<i2'), ('', '|V6'), ('f1', '<f8')]");
  EXPECT_EQ(npy::describe(npy::dtype<Outer>()),
            "[('f0', '|i1'), ('', '|V7'), ('f1', [('f0', '<i2'), ('', '|V6'), "
            "('f1', '<f8')], (2,)), ('f2', '<i4', (6,))]");
  EXPECT_EQ(npy::describe(npy::dtype<outside::Body>()),
            "[('x', '<f8'), ('y', '<f8'), ('name', '|S8'), ('id', '<i4'), "
            "('color', '<f4', (3,)), ('fixed', '|b1'), ('', '|V7')]");
  EXPECT_EQ(npy::dtype<Outer>().size, sizeof(Outer));
}

std::vector<std::byte> file_of(const std::string& dictionary, int major = 1,
                               char magic = '\x93') {
  std::string text = dictionary + '\n';
  std::string all{magic, 'N', 'U', 'M', 'P', 'Y', static_cast<char>(major), 0};
  const auto length = static_cast<std::uint32_t>(text.size());
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i)
    all += static_cast<char>(length >> (8 * i) & 0xFF);
  all += text;
  const auto* bytes = reinterpret_cast<const std::byte*>(all.data());
  return {bytes, bytes + all.size()};
}

npy::Header read(const std::string& dictionary, int major = 1) {
  return npy::read_header(file_of(dictionary, major), "x.npy");
}

TEST(NpyHeader, OfAllVersions) {
  for (const int major : {1, 2, 3}) {
    const auto header = read(
        "{'descr': '<f8', 'fortran_order': True, 'shape': (3, 4), }  ", major);
    EXPECT_EQ(header.type, npy::dtype<double>());
    EXPECT_TRUE(header.fortran_order);
    EXPECT_THAT(header.shape, ElementsAre(3, 4));
    EXPECT_EQ(header.data_offset, (major == 1 ? 10u : 12u) + 61);
  }
  EXPECT_TRUE(
      read("{'descr':'|b1','fortran_order':False,'shape':()}").shape.empty());
  EXPECT_THAT(
      read("{\"shape\": (5L,), 'fortran_order': False, 'descr': '=i4'}").shape,
      ElementsAre(5));
}

TEST(NpyHeader, OfRecords) {
  for (const npy::Type& type : {npy::dtype<Outer>(), npy::dtype<Inner>(),
                                npy::dtype<outside::Body>()}) {
    const auto header = read("{'descr': " + npy::describe(type) +
                             ", 'fortran_order': False, 'shape': (2,), }");
    EXPECT_EQ(header.type, type) << npy::describe(header.type);
    EXPECT_EQ(header.type.size, type.size);
    EXPECT_TRUE(npy::same_names(header.type, type));
  }
  EXPECT_FALSE(npy::dtype<Inner>() == npy::dtype<Outer>());
  // The same memory by another text.
  EXPECT_EQ(read("{'descr': [('p', '<f8'), ('q', '<f8'), (('title', 'n'), "
                 "'|S8'), ('i', '<i4'), ('k', '<f4', (3, 1)), ('b', '|b1'), "
                 "('', '|V7')], 'fortran_order': False, 'shape': (1,)}")
                .type,
            npy::dtype<outside::Body>());
}

TEST(NpyHeader, WhatIsForeignIsRefusedWithTheReason) {
  const auto refused = [](const std::string& descr, const char* why) {
    EXPECT_THAT(
        [&] {
          (void)read("{'descr': " + descr +
                     ", 'fortran_order': False, 'shape': (2,)}");
        },
        ThrowsMessage<Corrupt>(AllOf(HasSubstr("x.npy"), HasSubstr(why))))
        << descr;
  };
  refused("'>f8'", "big-endian");
  refused("'|O'", "Python objects");
  refused("'<U8'", "no counterpart");
  refused("'<M8[ns]'", "unknown");
  refused("'f'", "unknown");
  refused("'<f999'", "unknown");
  refused("'<i99999999999999999999'", "unknown");
  refused("5", "neither");
  refused("[]", "neither");
  refused("[('a',)]", "no (name, type)");
  refused("[(1, '<f8')]", "no name");
  refused("[('a', '<f8', 'x')]", "shape of a field");
  refused("[('a', '<f8', (9223372036854775807, 9223372036854775807))]",
          "absurd");
  refused("[('a', '|V4611686018427387904'), ('b', '|V4611686018427387904')]",
          "absurd");
  refused("'abc", "does not end");
  refused("[('a' '<f8')]", "comma");
  refused("{}", "unexpected");
  refused(std::string(1000, '('), "nested");
  const auto broken = [](const std::string& text, const char* why) {
    EXPECT_THAT([&] { (void)read(text); },
                ThrowsMessage<Corrupt>(HasSubstr(why)))
        << text;
  };
  broken(" ", "'{' is missing");
  broken("{'descr': '<f8'}", "lacks");
  broken("{'descr': '<f8', 'shape': (1,), 'fortran_order': 0}", "unknown");
  broken("{'descr': '<f8', 'shape': 1, 'fortran_order': False}", "unknown");
  broken("{'descr': '<f8', 'shape': (-1,), 'fortran_order': False}",
         "unexpected");
  broken("{'descr': '<f8', 'shape': ('a',), 'fortran_order': False}",
         "no tuple of numbers");
  broken("{'descr': '<f8', 'shape': (1,), 'fortran_order': False} x", "behind");
  broken("{'descr': '<f8', 'shape': (1,), 'fortran_order': False, 'x': 1}",
         "'x'");
  EXPECT_THROW((void)npy::read_header(file_of("{}", 4), "x"), Corrupt);
  EXPECT_THROW((void)npy::read_header(file_of("{}", 1, 'x'), "x"), Corrupt);
  EXPECT_THROW((void)npy::read_header({}, "x"), Corrupt);
  auto cut = file_of("{'descr': '<f8', 'shape': (1,), 'fortran_order': False}");
  cut.resize(cut.size() - 5);
  EXPECT_THROW((void)npy::read_header(cut, "x"), Corrupt);
}

// Whatever the bytes, it is a header or Corrupt.
TEST(NpyHeader, AnyBytes) {
  const std::string seed =
      "{'descr': [('x', '<f8'), ('', '|V4'), ('n', [('a', '|S3')], (2, 3))], "
      "'fortran_order': False, 'shape': (3, 4), }";
  const std::string alphabet = "'\"()[]{},:0123456789<>|=fiuVSbTrueFalse \n\\x";
  std::minstd_rand random(1);
  int good = 0;
  for (int n = 0; n < 20000; ++n) {
    std::string text = seed;
    for (unsigned i = random() % 4; i > 0 || n < 3; --i) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
      }
      if (i == 0) break;
    }
    try {
      const auto header = read(text);
      good += header.type.size < (std::size_t{1} << 62);
    } catch (const Corrupt&) {
    }
  }
  EXPECT_GT(good, 1000);
}

TEST(NpyHeader, IsWrittenAsItIsRead) {
  std::vector<std::byte> page(npy::kHeaderBytes);
  const auto again = [&](const npy::Type& type, const Shape& shape) {
    npy::write_header(page.data(), type, shape);
    return npy::read_header(page, "page");
  };
  auto header = again(npy::dtype<Inner>(), Shape(3, 4));
  EXPECT_EQ(header.type, npy::dtype<Inner>());
  EXPECT_THAT(header.shape, ElementsAre(3, 4));
  EXPECT_EQ(header.data_offset, npy::kHeaderBytes);
  // Arrays of arrays are one dimension more.
  header = again(npy::dtype<std::array<float, 3>>(), Shape(5));
  EXPECT_EQ(header.type, npy::dtype<float>());
  EXPECT_THAT(header.shape, ElementsAre(5, 3));
  header = again(npy::dtype<std::array<char, 6>>(), Shape(5));
  EXPECT_THAT(header.shape, ElementsAre(5));
  EXPECT_EQ(header.type, (npy::dtype<std::array<char, 6>>()));
}

}  // namespace
