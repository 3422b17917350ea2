#pragma once
// As much of SQLite as the example database needs.
//
//   sqlite::Database shop("/tmp/shop.db");
//   shop.query("SELECT price FROM goods WHERE id = ?", {7}).at(0);

#include <sqlite3.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace sqlite {

// A connection, which belongs to one process: SQLite forbids to take it across
// a fork. Its errors are std::runtime_error.
class Database {
 public:
  explicit Database(const std::string& path);  // made if it is not there
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database() { sqlite3_close(connection_); }

  // Runs one statement; the first column of all rows that it gives.
  std::vector<std::int64_t> query(
      const char* statement, std::initializer_list<std::int64_t> values = {});

 private:
  void check(int status) const;

  sqlite3* connection_ = nullptr;
};

}  // namespace sqlite
