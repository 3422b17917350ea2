#pragma once
// What clients and the keeper say to each other; keeper.h.

#include <cstdint>
#include <string>
#include <type_traits>

namespace shoal::keeper {

enum class Wish : std::uint32_t { deposit = 1, collect = 2, forget = 3 };

struct Request {
  Wish wish;
  std::int32_t end = -1;
  std::uint64_t ticket = 0;
  std::uint64_t container = 0;   // its descriptor comes first
  std::uint64_t keeps_open = 0;  // 1: the very open files, not what is in them
};
static_assert(sizeof(Request) == 32 && std::is_trivially_copyable_v<Request>);

enum class Answer : std::uint32_t { done = 1, unknown = 2, no_space = 3 };

struct Reply {
  Answer answer;
  std::uint32_t unused;
  std::uint64_t who;
};
static_assert(sizeof(Reply) == 16 && std::is_trivially_copyable_v<Reply>);

inline std::string address_of(std::uint64_t keeper) {
  return "shoal.keeper." + std::to_string(keeper);
}

}  // namespace shoal::keeper
