// A function that is overloaded, or a template, is no value: the compiler says
// what to write, for every verb. So it does for what cannot be called or sent.

#include "gtest/gtest.h"
#include "tests/support/refusals.h"

namespace {

using shoal::support::check_refusals;
using shoal::support::Compiler;

constexpr char kWrap[] = "wrap it in a lambda";
constexpr char kName[] = "overloaded_function_or_template_wrap_it_in_a_lambda";

std::string in(const std::string& pool, const std::string& call) {
  return "auto x(" + pool + "& pool, std::vector<int>& v) { return pool." +
         call + "; }";
}

shoal::support::Refusals refusals_of(const std::string& pool) {
  return {
      .prelude =
          "#include \"shoal/pool/pool.h\"\n"
          "#include \"shoal/pool/thread_pool.h\"\n"
          "using namespace shoal;\n"
          "int f(int); double f(double);\n"
          "template <class T> T g(T);\n"
          "int h(int);\n"
          "int two(int, int);\n"
          "int change(int&);\n"
          "int last(const std::unique_ptr<int>&);\n"
          "std::vector<std::unique_ptr<int>> owners;\n",
      .refused =
          {
              {in(pool, "apply(f, 1)"), kWrap},
              {in(pool, "apply(g, 1, 2L)"), kWrap},
              {in(pool, "map(f, v)"), kWrap},
              {in(pool, "map(f, {1U, 2U})"), kWrap},
              {in(pool, "starmap(g, std::vector<std::tuple<char>>())"), kWrap},
              {in(pool, "imap(f, std::vector<long>())"), kWrap},
              {in(pool, "imap_unordered(f, std::vector<short>())"), kWrap},
              {in(pool, "apply_async(f, 1)"), kName},
              {in(pool, "apply_async(Callbacks{}, f, 1)"), kName},
              {in(pool, "submit(g, 1)"), kName},
              {in(pool, "map_async(f, v)"), kName},
              {in(pool, "map_async(Callbacks{}, g, v)"), kName},
              {in(pool, "starmap_async(f, std::vector<std::tuple<int>>())"),
               kName},
              {in(pool, "map(two, {std::tuple(1, 2)})"), "starmap gives"},
              {in(pool, "map(change, v)"), "a parameter T& takes only"},
              {in(pool, "map([](const char*) { return 1; }, {\"a\"})"),
               "a literal as std::string"},
              {in(pool, "imap(two, v)"), "the number and the types"},
              {in(pool, "imap(last, owners)"), "by std::move"},
          },
      .accepted = {
          in(pool, "apply(h, 1)"),
          in(pool, "apply([](auto n) { return f(n); }, 1)"),
          in(pool, "apply(static_cast<int (*)(int)>(f), 1)"),
          in(pool, "apply(&h, 1)"),
          in(pool, "apply(g<int>, 1)"),
          in(pool, "map(h, v)"),
          in(pool, "map(h, {1, 2})"),
          in(pool, "map_async(h, {1, 2}, 1)"),
          in(pool, "apply_async({[](int) {}, {}}, h, 1)"),
          in(pool, "submit({[](int) {}, {}}, h, 1)"),
          in(pool, "map_async({[](const std::vector<int>&) {}, {}}, h, v)"),
          in(pool, "map_async({[](const std::vector<int>&) {}, {}}, h, {1})"),
          in(pool, "imap(h, {1, 2})"),
          in(pool, "imap(last, std::move(owners))"),
          in(pool, "starmap(two, {std::tuple(1, 2)})"),
      }};
}

// What only worker processes ask for. A type for each: the compiler complains
// of one once.
shoal::support::Refusals refusals_of_processes() {
  auto refusals = refusals_of("Pool");
  refusals.prelude += "#include \"shoal/ipc/exception_registry.h\"\n";
  const auto with_point = [](const std::string& call) {
    return "struct Point { explicit Point(int); int n; "
           "template <class A> void serialize(A& ar) { ar(n); } }; " +
           in("Pool", call);
  };
  constexpr char kMake[] = "a type with serialize needs a default constructor";
  refusals.refused = {
      {with_point("apply_async([](Point) { return 1; }, Point(1))"), kMake},
      {with_point("map([](int) { return Point(1); }, v)"), kMake},
      {with_point("imap([](Point) { return 1; }, std::vector<Point>())"),
       kMake},
      {"struct Failure : std::runtime_error { Failure(std::string, int = 0); "
       "template <class A> void serialize(A& ar) { ar(n); } int n; }; "
       "SHOAL_EXCEPTION(Failure);",
       kMake},
  };
  return refusals;
}

TEST(PoolRefusals, OfGcc) {
  check_refusals(refusals_of("Pool"), Compiler::gcc);
  check_refusals(refusals_of_processes(), Compiler::gcc);
}
TEST(PoolRefusals, OfClang) {
  check_refusals(refusals_of("Pool"), Compiler::clang);
  check_refusals(refusals_of_processes(), Compiler::clang);
}
TEST(ThreadPoolRefusals, OfGcc) {
  check_refusals(refusals_of("ThreadPool"), Compiler::gcc);
}
TEST(ThreadPoolRefusals, OfClang) {
  check_refusals(refusals_of("ThreadPool"), Compiler::clang);
}

}  // namespace
