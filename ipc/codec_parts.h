#pragma once
// The types of the standard library that the codec takes apart: what each
// holds, and in which form it is written.
//
//   Parts<std::map<int, std::string>>::type   // Types<int, std::string>
//   Parts<std::map<int, std::string>>::kForm  // Form::map

#include <array>
#include <concepts>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace shoal::codec {

// Comparators, hashes and allocators are not sent but made anew.
template <class T>
concept Stateless = std::is_empty_v<T> && std::default_initializable<T>;

template <class T>
concept Character = std::same_as<T, char> || std::same_as<T, wchar_t> ||
    std::same_as<T, char8_t> || std::same_as<T, char16_t> ||
    std::same_as<T, char32_t>;

// How the codec takes a type of the standard library apart, and into what.
enum class Form {
  text,
  path,
  vector,
  bits,      // vector<bool>
  sequence,  // deque, list
  set,
  map,
  array,
  product,  // pair, tuple
  optional,
  pointer,  // unique_ptr
  variant,
};
template <class... Ts>
struct Types {};
template <Form kF, class... Ts>
struct Holds {
  static constexpr Form kForm = kF;
  using type = Types<Ts...>;
};
template <class T>
struct Parts;  // undefined: not one that the codec takes apart

template <Character C, class R, Stateless A>

struct Parts<std::basic_string<C, R, A>> : Holds<Form::text, C> {};
template <>

struct Parts<std::filesystem::path> : Holds<Form::path, char> {};
template <class T, Stateless A>

struct Parts<std::vector<T, A>> : Holds<Form::vector, T> {};
template <Stateless A>

struct Parts<std::vector<bool, A>> : Holds<Form::bits, bool> {};
template <class T, Stateless A>

struct Parts<std::deque<T, A>> : Holds<Form::sequence, T> {};
template <class T, Stateless A>

struct Parts<std::list<T, A>> : Holds<Form::sequence, T> {};
template <class T, std::size_t kN>

struct Parts<std::array<T, kN>> : Holds<Form::array, T> {};
template <class T, class U>

struct Parts<std::pair<T, U>> : Holds<Form::product, T, U> {};
template <class... Ts>

struct Parts<std::tuple<Ts...>> : Holds<Form::product, Ts...> {};
template <class T>

struct Parts<std::optional<T>> : Holds<Form::optional, T> {};
template <class T>
requires(!std::is_array_v<T>) struct Parts<std::unique_ptr<T>>
    : Holds<Form::pointer, T> {
};
template <class... Ts>
requires(sizeof...(Ts) <= 255) struct Parts<std::variant<Ts...>>
    : Holds<Form::variant, Ts...> {
};
template <class K, Stateless C, Stateless A>

struct Parts<std::set<K, C, A>> : Holds<Form::set, K> {};
template <class K, Stateless C, Stateless A>

struct Parts<std::multiset<K, C, A>> : Holds<Form::set, K> {};
template <class K, Stateless H, Stateless E, Stateless A>

struct Parts<std::unordered_set<K, H, E, A>> : Holds<Form::set, K> {};
template <class K, Stateless H, Stateless E, Stateless A>

struct Parts<std::unordered_multiset<K, H, E, A>> : Holds<Form::set, K> {};
template <class K, class V, Stateless C, Stateless A>

struct Parts<std::map<K, V, C, A>> : Holds<Form::map, K, V> {};
template <class K, class V, Stateless C, Stateless A>

struct Parts<std::multimap<K, V, C, A>> : Holds<Form::map, K, V> {};
template <class K, class V, Stateless H, Stateless E, Stateless A>

struct Parts<std::unordered_map<K, V, H, E, A>> : Holds<Form::map, K, V> {};
template <class K, class V, Stateless H, Stateless E, Stateless A>

struct Parts<std::unordered_multimap<K, V, H, E, A>> : Holds<Form::map, K, V> {
};

template <class T>
concept Standard = requires {
  typename Parts<T>::type;
};

}  // namespace shoal::codec
