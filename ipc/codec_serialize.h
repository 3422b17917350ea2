#pragma once
// Types that say themselves what travels, as cereal's users write them:
//
//   class Account {
//    public:
//     template <class Archive>
//     void serialize(Archive& ar) {
//       ar(owner_, balance_);  // or: ar & owner_ & balance_;
//     }
//    private:
//     std::string owner_;
//     long balance_ = 0;
//   };
//
// Or free, found by its arguments: void serialize(Archive&, Account&). The one
// function is called with three archives: one that measures, one that writes
// and one that reads (codec_archive.h). It must give them the same things in
// the same order; what was read decides what is read next, as in
//
//   ar(size_);
//   if constexpr (Archive::is_loading::value) make_room(size_);
//
// Archive::is_loading and is_saving are std::true_type or std::false_type.
// A value to be written may be const: change members only while loading.
//
// The receiver makes a T() and reads into it. If the default constructor or
// serialize is private: friend struct shoal::SerializeAccess.
// What serialize throws leaves put, send or the call that it is part of.
// serialize wins over taking an aggregate apart and over copying bytes. It is
// inherited like any member: a derived class that adds fields needs its own.

#include <type_traits>
#include <utility>

namespace shoal {

// A class with a private serialize or default constructor befriends it.
struct SerializeAccess {
  template <class T, class Archive>
  static auto call_member(T& value, Archive& archive)
      -> decltype(static_cast<void>(value.serialize(archive))) {
    value.serialize(archive);
  }
  template <class T, class Archive>
  static auto call_free(T& value, Archive& archive)
      -> decltype(static_cast<void>(serialize(archive, value))) {
    serialize(archive, value);
  }
  template <class T>
  static auto make() -> decltype(T()) {
    return T();
  }
};

namespace codec {

// Stands for the three archives where only the existence of serialize is asked.
struct AnyArchive {
  using is_loading = std::false_type;
  using is_saving = std::true_type;
  template <class... Ts>
  AnyArchive& operator()(Ts&&...) {
    return *this;
  }
  template <class T>
  AnyArchive& operator&(T&&) {
    return *this;
  }
};

template <class T>
concept MemberSerialize = requires(T& value, AnyArchive& archive) {
  SerializeAccess::call_member(value, archive);
};
template <class T>
concept FreeSerialize = requires(T& value, AnyArchive& archive) {
  SerializeAccess::call_free(value, archive);
};
// Enumerations and numbers travel as they are, whatever a template takes.
template <class T>
concept HasSerialize = (std::is_class_v<T> ||
                        std::is_union_v<T>)&&(MemberSerialize<T> ||
                                              FreeSerialize<T>);

template <class T>
concept Makeable = requires {
  SerializeAccess::make<T>();
};

template <class T, class Archive>
void call_serialize(T& value, Archive& archive) {
  if constexpr (MemberSerialize<T>) {
    SerializeAccess::call_member(value, archive);
  } else {
    SerializeAccess::call_free(value, archive);
  }
}

}  // namespace codec
}  // namespace shoal
