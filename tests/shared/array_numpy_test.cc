// Arrays and NumPy: what one writes the other sees, in the same memory. By
// Debian's python3-numpy, which bazelw installs.

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <complex>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shoal/ipc/process.h"
#include "shoal/ipc/queue.h"
#include "shoal/shared/array.h"
#include "tests/support/child.h"
#include "tests/support/name.h"

namespace outside {

struct Particle {
  double position[3];
  std::int32_t id;
  char kind[4];
  bool alive;
};
SHOAL_FIELDS(Particle, position, id, kind, alive)

}  // namespace outside

namespace {

using outside::Particle;
using shoal::Access;
using shoal::Array;
using shoal::Corrupt;
using shoal::Shape;
using shoal::TypeMismatch;
using shoal::support::Child;
using shoal::support::eventually;
using shoal::support::Name;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Python's own words if it fails, else nothing.
std::string python(const std::string& script,
                   const std::vector<std::string>& arguments = {}) {
  std::string command = "/usr/bin/python3 - 2>&1";
  for (const std::string& argument : arguments)
    command += " '" + argument + "'";
  command += " <<'END'\nimport sys, numpy\n" + script + "\nEND\n";
  FILE* const pipe = popen(command.c_str(), "re");
  std::string output;
  std::array<char, 4096> buffer;
  while (fgets(buffer.data(), buffer.size(), pipe) != nullptr)
    output += buffer.data();
  const int status = pclose(pipe);
  return status == 0 ? output : "python: " + std::to_string(status) + output;
}

// A file of NumPy's that goes with the test.
class File {
 public:
  // `expression` is what numpy.save gets.
  explicit File(const std::string& expression) {
    EXPECT_EQ(python("numpy.save(sys.argv[1], " + expression + ")", {path_}),
              "");
  }
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  // "" if it holds of `a`, which NumPy loads.
  std::string expect(const std::string& condition) const {
    return python("a = numpy.load(sys.argv[1])\nassert " + condition + ", a",
                  {path_});
  }

 private:
  const std::string path_ =
      testing::TempDir() + shoal::support::unique_name("numpy") + ".npy";
};

TEST(ArrayNumpy, SeesDimensionsAndFields) {
  const Name name("field"), structs("structs"), rows("rows");
  auto field = Array<float>::create(name, Shape(3, 4));
  field(2, 1) = 7;
  auto particles = Array<Particle>::create(structs, 2);
  particles[1] = {.position = {1, 2, 3}, .id = 9, .kind = "abc", .alive = true};
  auto vectors = Array<std::array<double, 3>>::create(rows, 5);
  vectors[4][2] = 8;
  EXPECT_EQ(python(R"(
field = numpy.load(sys.argv[1], mmap_mode='r+')
assert field.dtype == numpy.float32 and field.shape == (3, 4), field
assert field[2, 1] == 7 and field.sum() == 7
field[1, 3] = 5
p = numpy.load(sys.argv[2], mmap_mode='r+')
assert p.shape == (2,) and p.dtype.names == ('position', 'id', 'kind', 'alive'), p.dtype
assert p[1]['position'].tolist() == [1, 2, 3] and p[1]['id'] == 9
assert p[1]['kind'] == b'abc' and p[1]['alive'] and not p[0]['alive']
p['id'][0] = 4
p['position'][0, 2] = 2.5
v = numpy.load(sys.argv[3], mmap_mode='r+')
assert v.shape == (5, 3) and v[4, 2] == 8, v
v[0, 1] = 6
)",
                   {name.path(), structs.path(), rows.path()}),
            "");
  EXPECT_EQ(field(1, 3), 5);
  EXPECT_EQ(particles[0].id, 4);
  EXPECT_EQ(particles[0].position[2], 2.5);
  EXPECT_EQ(vectors[0][1], 6);
}

// While both run: each answers the other.
TEST(ArrayNumpy, IsTheSameMemoryAllTheWhile) {
  const Name name("live");
  auto array = Array<std::int64_t>::create(name, 3);
  Child numpy([&](Child& self) {
    self.expect(python(R"(
import time
a = numpy.load(sys.argv[1], mmap_mode='r+')
a[0] = 1
end = time.monotonic() + 30
for n in range(1, 101):
    while a[1] != n:
        assert time.monotonic() < end
    a[0] = n + 1
)",
                       {name.path()})
                    .empty(),
                "NumPy's side");
  });
  const volatile std::int64_t& asked = array[0];
  volatile std::int64_t& answered = array[1];
  for (std::int64_t n = 1; n <= 101; ++n) {
    ASSERT_TRUE(eventually([&] { return asked == n; })) << n;
    answered = n;
  }
  EXPECT_EQ(numpy.join(), 0) << numpy.failures();
}

TEST(ArrayNumpy, OpensWhatItWrote) {
  const File file("numpy.arange(12.0).reshape(3, 4)");
  auto array = Array<double>::open_npy(file.path());
  EXPECT_THAT(array.shape(), ElementsAre(3, 4));
  EXPECT_THAT(array.row(1), ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(array(2, 3), 11);
  array(0, 1) = -1;  // is in the file
  EXPECT_EQ(file.expect("a[0, 1] == -1 and a[2, 3] == 11"), "");
  EXPECT_THAT([&] { (void)array.lock(); },
              ThrowsMessage<std::logic_error>(HasSubstr(file.path())));
  const auto again = Array<double>::open_npy(file.path(), {.read_only = true});
  EXPECT_EQ(again(0, 1), -1);
  EXPECT_EQ(python("a = numpy.load(sys.argv[1], mmap_mode='r+')\na[1, 1] = 9",
                   {file.path()}),
            "");
  EXPECT_EQ(again(1, 1), 9);
}

TEST(ArrayNumpy, InFortranOrder) {
  const File file("numpy.asfortranarray(numpy.arange(12).reshape(3, 4))");
  auto array = Array<std::int64_t>::open_npy(file.path());
  EXPECT_TRUE(array.fortran_order());
  EXPECT_THAT(array.shape(), ElementsAre(3, 4));
  EXPECT_THAT(array.strides(), ElementsAre(1, 3));
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j) {
      EXPECT_EQ(array(i, j), 4 * i + j);
      EXPECT_EQ(array.at(i, j), 4 * i + j);
    }
  EXPECT_THAT(array.column(2), ElementsAre(2, 6, 10));
  EXPECT_THROW((void)array.row(1), std::logic_error);
  EXPECT_THROW((void)array.at(3, 0), std::out_of_range);
  array(2, 0) = 50;
  EXPECT_EQ(file.expect("a[2, 0] == 50 and a.flags.f_contiguous"), "");
  const File line("numpy.asfortranarray(numpy.arange(5))");
  EXPECT_THAT(Array<std::int64_t>::open_npy(line.path()).slice(1, 3),
              ElementsAre(1, 2));
}

template <class T>
void opens(const std::string& dtype, T third) {
  const File file("numpy.array([1, 0, 1], dtype='" + dtype + "')");
  auto array = Array<T>::open_npy(file.path());
  ASSERT_EQ(array.size(), 3u) << dtype;
  EXPECT_EQ(array[2], third) << dtype;
  EXPECT_EQ(array[1], T{}) << dtype;
}

TEST(ArrayNumpy, OpensEachType) {
  opens<bool>("?", true);
  opens<std::int8_t>("i1", 1);
  opens<std::uint16_t>("u2", 1);
  opens<int>("i4", 1);
  opens<std::uint64_t>("u8", 1);
  opens<float>("f4", 1);
  opens<double>("f8", 1);
  opens<long double>("g", 1);
  opens<std::complex<double>>("c16", 1);
  const File record(
      "numpy.array([((1, 2, 3), 9, b'ab', True)], "
      "dtype=numpy.dtype([('position',"
      " '<f8', 3), ('id', '<i4'), ('kind', 'S4'), ('alive', '?')], "
      "align=True))");
  const auto particles = Array<Particle>::open_npy(record.path());
  EXPECT_EQ(particles[0].position[1], 2);
  EXPECT_STREQ(particles[0].kind, "ab");
  EXPECT_TRUE(particles[0].alive);
  const File vectors("numpy.arange(6.0).reshape(2, 3)");
  const auto rows = Array<std::array<double, 3>>::open_npy(vectors.path());
  EXPECT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1][2], 5);
  const File scalar("numpy.float64(7)");
  EXPECT_THAT(Array<double>::open_npy(scalar.path()), ElementsAre(7));
  const File empty("numpy.zeros((0, 3))");
  EXPECT_THAT(Array<double>::open_npy(empty.path()).shape(), ElementsAre(0, 3));
}

TEST(ArrayNumpy, RefusesWhatIsForeign) {
  const auto refused = [](const std::string& expression, const char* why) {
    const File file(expression);
    try {
      (void)Array<double>::open_npy(file.path());
      ADD_FAILURE() << expression;
    } catch (const shoal::Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(file.path()), HasSubstr(why)));
    }
  };
  refused("numpy.arange(3)", "'<i8'");
  refused("numpy.arange(3, dtype='f4')", "'<f4'");
  refused("numpy.arange(3, dtype='>f8')", "big-endian");
  refused("numpy.array([1, None])", "Python objects");
  refused("numpy.array(['a'])", "no counterpart");
  refused("numpy.zeros(3, dtype=[('x', 'f8')])", "[('x', '<f8')]");
  refused("numpy.zeros((1,) * 9)", "9");
  // The same memory, but other names than the program's.
  const File named(
      "numpy.zeros(1, dtype=numpy.dtype([('velocity', '<f8', 3), ('id', '<i4'),"
      " ('kind', 'S4'), ('alive', '?')], align=True))");
  EXPECT_THAT([&] { (void)Array<Particle>::open_npy(named.path()); },
              ThrowsMessage<TypeMismatch>(
                  AllOf(HasSubstr("'velocity'"), HasSubstr("'position'"))));
}

TEST(ArrayNumpy, RefusesWhatIsCorrupt) {
  EXPECT_THROW((void)Array<double>::open_npy("/nonexistent/x.npy"),
               std::system_error);
  EXPECT_THROW((void)Array<double>::open_npy("/dev/null"), Corrupt);
  EXPECT_THROW((void)Array<double>::open_npy("/tmp"), std::system_error);
  const File file("numpy.arange(1000.0)");
  const auto size = std::filesystem::file_size(file.path());
  for (const std::uintmax_t cut : {size - 1, size - 8000, std::uintmax_t{100},
                                   std::uintmax_t{11}, std::uintmax_t{0}}) {
    std::filesystem::resize_file(file.path(), cut);
    EXPECT_THAT([&] { (void)Array<double>::open_npy(file.path()); },
                ThrowsMessage<Corrupt>(HasSubstr(std::to_string(cut))))
        << cut;
    if (cut > 128) {
      EXPECT_THAT([&] { (void)Array<double>::open_npy(file.path()); },
                  ThrowsMessage<Corrupt>(
                      HasSubstr("where " + std::to_string(size) + " are")));
    }
  }
  std::ofstream(file.path()) << "PK\3\4 this is a .npz, of another format";
  EXPECT_THAT([&] { (void)Array<double>::open_npy(file.path()); },
              ThrowsMessage<Corrupt>(HasSubstr("NUMPY")));
}

// A file that NumPy wrote goes to other processes as any Array.
TEST(ArrayNumpy, OfAFileTravels) {
  const File file("numpy.arange(4.0)");
  auto array = Array<double>::open_npy(file.path());
  for (const auto method :
       {shoal::StartMethod::fork, shoal::StartMethod::spawn}) {
    shoal::Process child(
        {.start_method = method}, [](Array<double> got) { got[1] += 10; },
        array);
    child.start();
    EXPECT_TRUE(child.join(shoal::support::kPatience));
    EXPECT_EQ(child.exitcode(), 0);
  }
  EXPECT_EQ(array[1], 21);
  shoal::Queue<Array<double>> queue(2);
  queue.put(array);
  std::filesystem::remove(file.path());
  auto got = queue.get(shoal::support::kPatience);
  got[2] = 5;
  EXPECT_EQ(array[2], 5);
  shoal::Queue<Array<float>> other(2);
  EXPECT_THROW((void)shoal::codec::to_bytes(array), std::invalid_argument);
}

}  // namespace
