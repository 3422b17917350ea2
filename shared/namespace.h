#pragma once
// Namespace: named values of any types that a Manager holds, and this its
// proxy.
//
//   shoal::Namespace ns = manager.ns();
//   ns.set("limit", 10);
//   int limit = ns.get<int>("limit");      // TypeMismatch for another type
//
// Sharing, death and cost: as of Dict (dict.h).

#include <cstddef>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "shoal/shared/dict.h"
#include "shoal/shared/manager_client.h"

namespace shoal {

namespace manager {

class NamespaceData : public Held {
 public:
  static std::uint64_t type_id() { return layout::hash("namespace"); }
  NamespaceData() : Held(type_id()) {}
  std::string type_text() const override { return "namespace"; }

  template <class T>
  void set(std::string name, T value) {
    values_[std::move(name)] = std::make_unique<Of<T>>(std::move(value));
  }
  template <class T>
  const T& get(const std::string& name) const {
    return value_of<T>(name);
  }
  // As Dict's.
  template <class T, class F>
  const T& change(const std::string& name, F& f, const T* missing) {
    if (missing != nullptr && !contains(name)) set<T>(name, *missing);
    T& place = value_of<T>(name);
    T value = place;
    manager::apply_to(value, f);
    return place = std::move(value);
  }
  bool contains(const std::string& name) const {
    return values_.contains(name);
  }
  bool erase(const std::string& name) { return values_.erase(name) != 0; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, value] : values_) names.push_back(name);
    return names;
  }

 private:
  struct Any {
    virtual ~Any() = default;
    virtual std::string type() const = 0;
  };
  template <class T>
  struct Of : Any {
    explicit Of(T of) : value(std::move(of)) {}
    std::string type() const override { return describe_layout<T>(); }
    T value;
  };
  template <class T>
  T& value_of(const std::string& name) const {
    const auto found = values_.find(name);
    if (found == values_.end())
      throw std::out_of_range("shoal: the Namespace has no \"" + name + '"');
    auto* const value = dynamic_cast<Of<T>*>(found->second.get());
    if (value == nullptr)
      throw TypeMismatch("shoal: \"" + name +
                         "\" in the Namespace is of another type than is asked "
                         "for\n  expected: " +
                         describe_layout<T>() +
                         "\n  found:    " + found->second->type());
    return value->value;
  }

  std::map<std::string, std::unique_ptr<Any>> values_;
};

}  // namespace manager

class Namespace : public manager::Proxy {
 public:
  using Data = manager::NamespaceData;

  explicit Namespace(std::shared_ptr<const manager::Reference> reference)
      : Proxy(std::move(reference)) {}

  template <class T>
  void set(const std::string& name, const T& value) {
    using V = shoal::call::Argument<const T&>;  // a literal is a std::string
    static_assert(Message<V>, "shoal: what a Namespace holds is a Message");
    manager::invoke<&Data::set<V>, Data>(reference(), name, V(value));
  }
  // Throws std::out_of_range, TypeMismatch that prints both types.
  template <class T>
  T get(const std::string& name) const {
    return manager::invoke<&Data::get<T>, Data>(reference(), name);
  }
  bool contains(const std::string& name) const {
    return manager::invoke<&Data::contains, Data>(reference(), name);
  }
  // False: there was none.
  bool erase(const std::string& name) {
    return manager::invoke<&Data::erase, Data>(reference(), name);
  }
  std::vector<std::string> names() const {
    return manager::invoke<&Data::names, Data>(reference());
  }
  // As Dict's.
  template <class T, class F>
  T update(const std::string& name, const F& f) {
    return manager::change<T, Data>(reference(), name, f);
  }
};

template <>
struct HandleTraits<Namespace> : manager::ProxyTraits<Namespace> {};

}  // namespace shoal
