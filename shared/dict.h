#pragma once
// Dict<K, V>: a dictionary that a Manager holds, and this its proxy.
//
//   shoal::Dict<std::string, int> hits = manager.dict<std::string, int>();
//   hits.set("index", 1);
//   hits.update("index", [](int n) { return n + 1; });   // nothing is lost
//
// Sharing:  copying one copies the reference; any thread, any process, any
//           message. Each call is atomic.
// Ordering: in the order in which keys came, as Python's.
// Death:    of a client in a call: done or not. Of the server: PeerDied.
// Cost:     a round trip to the server for each call.

#include <concepts>
#include <cstddef>
#include <functional>
#include <iterator>
#include <list>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "shoal/ipc/call.h"
#include "shoal/ipc/message.h"
#include "shoal/shared/manager_client.h"

namespace shoal {

namespace manager {

// What of a key can be said.
template <class K>
std::string text_of(const K& key) {
  if constexpr (std::is_convertible_v<const K&, std::string>)
    return '"' + std::string(key) + '"';
  else if constexpr (std::is_arithmetic_v<K>)
    return std::to_string(key);
  else
    return "a " + type_name<K>();
}

template <class K, class V>
class DictData : public Held {
  static_assert(Message<K> && Message<V>,
                "shoal: keys and values of a Dict travel: they are Messages");
  static_assert(
      requires(const K& key) {
        { key < key } -> std::convertible_to<bool>;
      },
      "shoal: keys of a Dict need operator<");

 public:
  static std::string text() { return "dict " + type_name<std::pair<K, V>>(); }
  static std::uint64_t type_id() { return type_id_of<DictData>(); }
  DictData() : Held(type_id()) {}
  std::string type_text() const override { return text(); }

  const V& at(const K& key) const { return found(key)->second; }
  // Nothing: no such key.
  std::optional<V> find(const K& key) const {
    const auto place = places_.find(key);
    if (place == places_.end()) return std::nullopt;
    return place->second->second;
  }
  void set(K key, V value) {
    const auto place = places_.find(key);
    if (place != places_.end())
      place->second->second = std::move(value);
    else
      add(std::move(key), std::move(value));
  }
  // What is there now.
  const V& set_default(K key, V value) {
    const auto place = places_.find(key);
    return place != places_.end() ? place->second->second
                                  : add(std::move(key), std::move(value));
  }
  bool erase(const K& key) {
    const auto place = places_.find(key);
    if (place == places_.end()) return false;
    remove(place);
    return true;
  }
  // Throws std::out_of_range.
  const std::pair<K, V>& last() const {
    if (items_.empty())
      throw std::out_of_range("shoal: Dict::popitem of an empty Dict");
    return items_.back();
  }
  void erase_last() { remove(places_.find(items_.back().first)); }
  bool contains(const K& key) const { return places_.contains(key); }
  std::uint64_t size() const { return items_.size(); }
  void clear() {
    places_.clear();
    items_.clear();
  }
  std::vector<K> keys() const {
    std::vector<K> all;
    all.reserve(items_.size());
    for (const auto& item : items_) all.push_back(item.first);
    return all;
  }
  std::vector<V> values() const {
    std::vector<V> all;
    all.reserve(items_.size());
    for (const auto& item : items_) all.push_back(item.second);
    return all;
  }
  std::vector<std::pair<K, V>> items() const {
    return {items_.begin(), items_.end()};
  }
  void merge(std::vector<std::pair<K, V>> items) {
    for (auto& [key, value] : items) set(std::move(key), std::move(value));
  }
  // By f(V) -> V, or f(V&); of `missing` where there is none.
  template <class, class F>
  const V& change(const K& key, F& f, const V* missing) {
    const auto place = places_.find(key);
    if (place == places_.end() && missing == nullptr) found(key);  // throws
    V value = place != places_.end() ? place->second->second : *missing;
    manager::apply_to(value, f);
    if (place == places_.end()) return add(key, std::move(value));
    return place->second->second = std::move(value);
  }

 private:
  using Items = std::list<std::pair<K, V>>;  // in their order
  // By keys that lie in items.
  using Places = std::map<std::reference_wrapper<const K>,
                          typename Items::iterator, std::less<K>>;

  typename Items::iterator found(const K& key) const {
    const auto place = places_.find(key);
    if (place == places_.end())
      throw std::out_of_range("shoal: the Dict has no key " + text_of(key));
    return place->second;
  }
  V& add(K key, V value) {
    items_.emplace_back(std::move(key), std::move(value));
    try {
      places_.emplace(items_.back().first, std::prev(items_.end()));
    } catch (...) {
      items_.pop_back();
      throw;
    }
    return items_.back().second;
  }
  void remove(typename Places::iterator place) {
    const auto item = place->second;
    places_.erase(place);
    items_.erase(item);
  }

  Items items_;
  Places places_;
};

// f, shipped, on what lies under a key.
template <class Data, class K, class V, class F>
void run_change(Service&, Held* held, codec::Reader& reader, Reply& reply) {
  F f = call::decode_callable<F>(reader);
  const K key = codec::decode<K>(reader);
  const auto missing = codec::decode<std::list<V>>(reader);
  reader.finish();
  auto& data = static_cast<Data&>(*held);
  const std::lock_guard guard(data.mutex());
  const V& value = data.template change<V>(
      key, f, missing.empty() ? nullptr : &missing.front());
  codec::Writer writer(reply.allocate(codec::size(value)), reply.passage());
  codec::encode(writer, value);
  writer.finish();
}
// The same here.
template <class V, class Data, class K, class F>
V change(const Reference& object, const K& key, const F& f,
         const std::list<V>& missing = {}) {
  using Callable = std::decay_t<F>;  // a function travels as its pointer
  const Callable& callable = f;
  return object.remote->call_with<V>(
      call::reference_of<&run_change<Data, K, V, Callable>>(), object.object,
      object.type, callable, key, missing);
}

}  // namespace manager

template <class K, class V>
class Dict : public manager::Proxy {
 public:
  using Data = manager::DictData<K, V>;
  using key_type = K;
  using mapped_type = V;

  explicit Dict(std::shared_ptr<const manager::Reference> reference)
      : Proxy(std::move(reference)) {}

  // d[key] = value;  V value = d[key];
  using Item = manager::Item<Dict, K, V>;
  Item operator[](const K& key) { return Item(*this, key); }

  // Throws std::out_of_range that names the key.
  V at(const K& key) const { return call<&Data::at>(key); }
  V get(const K& key) const { return at(key); }
  std::optional<V> find(const K& key) const { return call<&Data::find>(key); }
  V get(const K& key, const V& missing) const {
    return find(key).value_or(missing);
  }
  void set(const K& key, const V& value) { call<&Data::set>(key, value); }
  // Sets it where there is none; what is there then.
  V setdefault(const K& key, const V& value) {
    return call<&Data::set_default>(key, value);
  }
  // False: there was none.
  bool erase(const K& key) { return call<&Data::erase>(key); }
  // Throws std::out_of_range.
  V pop(const K& key) { return take<&Data::at, &Data::erase>(key); }
  std::pair<K, V> popitem() { return take<&Data::last, &Data::erase_last>(); }
  bool contains(const K& key) const { return call<&Data::contains>(key); }
  std::size_t size() const { return call<&Data::size>(); }
  bool empty() const { return size() == 0; }
  void clear() { call<&Data::clear>(); }
  // Copies, of one moment.
  std::vector<K> keys() const { return call<&Data::keys>(); }
  std::vector<V> values() const { return call<&Data::values>(); }
  std::vector<std::pair<K, V>> items() const { return call<&Data::items>(); }
  // All at once.
  void update(const std::vector<std::pair<K, V>>& items) {
    call<&Data::merge>(items);
  }

  // value = f(value), there, or f(value) by reference: nothing that others do
  // comes between. f travels as a task's function does. The new value; what f
  // throws leaves the old one. Without `missing`, std::out_of_range for a key
  // that is not there.
  template <class F>
  requires std::invocable<F&, V&> V update(const K& key, const F& f) {
    return manager::change<V, Data>(reference(), key, f);
  }
  template <class F>
  requires std::invocable<F&, V&> V update(const K& key, const F& f,
                                           const V& missing) {
    return manager::change<V, Data>(reference(), key, f, {missing});
  }

 private:
  template <auto kMethod, class... As>
  auto call(const As&... arguments) const {
    return manager::invoke<kMethod, Data>(reference(), arguments...);
  }
  template <auto kLook, auto kRemove, class... As>
  auto take(const As&... arguments) {
    return manager::take<kLook, kRemove, Data>(reference(), arguments...);
  }
};

template <class K, class V>
struct HandleTraits<Dict<K, V>> : manager::ProxyTraits<Dict<K, V>> {};

}  // namespace shoal
