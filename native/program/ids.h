// Indices of different kinds, which the compiler keeps apart.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace rskip {

// The place of a thing in its Table. None unless it is given a number.
template <class Tag>
class Index {
 public:
  constexpr Index() = default;
  constexpr explicit Index(size_t number) : number_(static_cast<int32_t>(number)) {}
  constexpr int32_t number() const { return number_; }
  constexpr explicit operator bool() const { return number_ >= 0; }
  friend constexpr auto operator<=>(const Index&, const Index&) = default;

 private:
  int32_t number_ = -1;
};

// A vector that is indexed by its own kind of index.
template <class Id, class T>
class Table {
 public:
  Table() = default;
  explicit Table(size_t size, const T& item = T()) : items_(size, item) {}

  Id add(T item) {
    items_.push_back(std::move(item));
    return Id(items_.size() - 1);
  }
  decltype(auto) operator[](Id id) { return items_[static_cast<size_t>(id.number())]; }
  decltype(auto) operator[](Id id) const { return items_[static_cast<size_t>(id.number())]; }
  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }
  // The one that add() returns next.
  Id next() const { return Id(items_.size()); }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

  // for (Id id : table.ids())
  class Ids {
   public:
    struct Iterator {
      size_t at;
      Id operator*() const { return Id(at); }
      Iterator& operator++() { return ++at, *this; }
      bool operator==(const Iterator&) const = default;
    };
    explicit Ids(size_t size) : size_(size) {}
    Iterator begin() const { return {0}; }
    Iterator end() const { return {size_}; }

   private:
    size_t size_;
  };
  Ids ids() const { return Ids(items_.size()); }

 private:
  std::vector<T> items_;
};

}  // namespace rskip
