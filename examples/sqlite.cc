#include "shoal/examples/sqlite.h"

#include <memory>
#include <stdexcept>

namespace sqlite {

Database::Database(const std::string& path) {
  const int status = sqlite3_open(path.c_str(), &connection_);
  if (status == SQLITE_OK) return;
  const std::string why = path + ": " + sqlite3_errstr(status);
  sqlite3_close(connection_);
  throw std::runtime_error(why);
}

std::vector<std::int64_t> Database::query(
    const char* statement, std::initializer_list<std::int64_t> values) {
  sqlite3_stmt* prepared = nullptr;
  check(sqlite3_prepare_v2(connection_, statement, -1, &prepared, nullptr));
  const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owned(
      prepared, sqlite3_finalize);
  int number = 0;
  for (const std::int64_t value : values)
    check(sqlite3_bind_int64(prepared, ++number, value));
  std::vector<std::int64_t> column;
  int status;
  while ((status = sqlite3_step(prepared)) == SQLITE_ROW)
    column.push_back(sqlite3_column_int64(prepared, 0));
  if (status != SQLITE_DONE) check(status);
  return column;
}

void Database::check(int status) const {
  if (status != SQLITE_OK)
    throw std::runtime_error(sqlite3_errmsg(connection_));
}

}  // namespace sqlite
