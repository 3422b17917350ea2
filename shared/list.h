#pragma once
// List<T>: a list that a Manager holds, and this its proxy.
//
//   shoal::List<Job> jobs = manager.list<Job>();
//   jobs.append(job);                // here
//   Job job = jobs.pop(0);           // there
//
// Sharing, death and cost: as of Dict (dict.h). Indices below 0 count from the
// end, as in Python.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <deque>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "shoal/shared/dict.h"
#include "shoal/shared/manager_client.h"

namespace shoal {

namespace manager {

template <class T>
class ListData : public Held {
  static_assert(Message<T>,
                "shoal: elements of a List travel: they are Messages");

 public:
  static std::string text() { return "list " + type_name<T>(); }
  static std::uint64_t type_id() { return type_id_of<ListData>(); }
  ListData() : Held(type_id()) {}
  std::string type_text() const override { return text(); }

  const T& at(std::int64_t index) const { return items_[place(index)]; }
  void set(std::int64_t index, T value) {
    items_[place(index)] = std::move(value);
  }
  void append(T value) { items_.push_back(std::move(value)); }
  void extend(std::vector<T> values) {
    for (auto&& value : values)
      items_.push_back(static_cast<T>(std::move(value)));
  }
  // Beyond either end: there, as in Python.
  void insert(std::int64_t index, T value) {
    const auto size = static_cast<std::int64_t>(items_.size());
    if (index < 0) index += size;
    items_.insert(items_.begin() + std::clamp<std::int64_t>(index, 0, size),
                  std::move(value));
  }
  void erase(std::int64_t index) {
    items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(place(index)));
  }
  std::uint64_t size() const { return items_.size(); }
  void clear() { items_.clear(); }
  void reverse() { std::reverse(items_.begin(), items_.end()); }
  std::vector<T> copy() const { return {items_.begin(), items_.end()}; }
  std::vector<T> slice(std::int64_t first, std::int64_t last) const {
    const auto size = static_cast<std::int64_t>(items_.size());
    const auto within = [&](std::int64_t index) {
      return std::clamp<std::int64_t>(index < 0 ? index + size : index, 0,
                                      size);
    };
    const std::int64_t from = within(first);
    return {items_.begin() + from,
            items_.begin() + std::max(from, within(last))};
  }
  // -1: none.
  std::int64_t index_of(const T& value) const {
    const auto at = std::find(items_.begin(), items_.end(), value);
    return at == items_.end() ? -1 : at - items_.begin();
  }
  std::uint64_t count(const T& value) const {
    return static_cast<std::uint64_t>(
        std::count(items_.begin(), items_.end(), value));
  }
  bool remove(const T& value) {
    const auto at = std::find(items_.begin(), items_.end(), value);
    if (at == items_.end()) return false;
    items_.erase(at);
    return true;
  }
  void sort() { std::stable_sort(items_.begin(), items_.end()); }
  // As Dict's.
  template <class, class F>
  const T& change(std::int64_t index, F& f, const T*) {
    T& item = items_[place(index)];
    T value = item;
    manager::apply_to(value, f);
    return item = std::move(value);
  }

 private:
  std::size_t place(std::int64_t index) const {
    const auto size = static_cast<std::int64_t>(items_.size());
    const std::int64_t at = index < 0 ? index + size : index;
    if (at < 0 || at >= size)
      throw std::out_of_range("shoal: List index " + std::to_string(index) +
                              " is outside of its " + std::to_string(size) +
                              " elements");
    return static_cast<std::size_t>(at);
  }

  std::deque<T> items_;
};

}  // namespace manager

template <class T>
class List : public manager::Proxy {
 public:
  using Data = manager::ListData<T>;
  using value_type = T;

  explicit List(std::shared_ptr<const manager::Reference> reference)
      : Proxy(std::move(reference)) {}

  // l[i] = value;  T value = l[i];
  using Item = manager::Item<List, std::int64_t, T>;
  Item operator[](std::int64_t index) { return Item(*this, index); }

  // These throw std::out_of_range that names the index and the size.
  T at(std::int64_t index) const { return call<&Data::at>(index); }
  T get(std::int64_t index) const { return at(index); }
  void set(std::int64_t index, const T& value) {
    call<&Data::set>(index, value);
  }
  T pop(std::int64_t index = -1) {
    return manager::take<&Data::at, &Data::erase, Data>(reference(), index);
  }

  void append(const T& value) { call<&Data::append>(value); }
  void push_back(const T& value) { append(value); }
  void extend(const std::vector<T>& values) { call<&Data::extend>(values); }
  void insert(std::int64_t index, const T& value) {
    call<&Data::insert>(index, value);
  }
  std::size_t size() const { return call<&Data::size>(); }
  bool empty() const { return size() == 0; }
  void clear() { call<&Data::clear>(); }
  void reverse() { call<&Data::reverse>(); }
  // Copies, of one moment.
  std::vector<T> copy() const { return call<&Data::copy>(); }
  // [first, last)
  std::vector<T> slice(std::int64_t first, std::int64_t last) const {
    return call<&Data::slice>(first, last);
  }
  // Throws std::invalid_argument when there is none.
  std::size_t index(const T& value) const requires std::equality_comparable<T> {
    const std::int64_t at = call<&Data::index_of>(value);
    if (at < 0)
      throw std::invalid_argument("shoal: List::index: it is not in the List");
    return static_cast<std::size_t>(at);
  }
  std::size_t count(const T& value) const requires std::equality_comparable<T> {
    return call<&Data::count>(value);
  }
  // The first one. Throws std::invalid_argument when there is none.
  void remove(const T& value) requires std::equality_comparable<T> {
    if (!call<&Data::remove>(value))
      throw std::invalid_argument("shoal: List::remove: it is not in the List");
  }
  void sort() requires std::totally_ordered<T> { call<&Data::sort>(); }

  // As Dict's.
  template <class F>
  requires std::invocable<F&, T&> T update(std::int64_t index, const F& f) {
    return manager::change<T, Data>(reference(), index, f);
  }

 private:
  template <auto kMethod, class... As>
  auto call(const As&... arguments) const {
    return manager::invoke<kMethod, Data>(reference(), arguments...);
  }
};

template <class T>
struct HandleTraits<List<T>> : manager::ProxyTraits<List<T>> {};

}  // namespace shoal
