// An initializer: each worker opens its own connection to a database, once,
// and all of its tasks use it.
//   ./bazelw run -c opt //examples:database

#include <shoal/shoal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "shoal/examples/sqlite.h"

constexpr int kShops = 500;

std::optional<sqlite::Database> database;  // the worker's

void connect(const std::string& path) {
  database.emplace(path);
  std::printf("worker %d is connected\n", getpid());
}

std::int64_t takings(int shop) {
  return database->query("SELECT sum(price) FROM sales WHERE shop = ?", {shop})
      .at(0);
}

void make(const std::string& path) {
  sqlite::Database fresh(path);
  fresh.query("CREATE TABLE sales (shop INTEGER, price INTEGER)");
  fresh.query(
      "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE "
      "i < 99999) INSERT INTO sales SELECT i % ?, i * 7919 % 1000 FROM n",
      {kShops});
}

int main() {
  std::string directory = "/tmp/database.XXXXXX";
  if (mkdtemp(directory.data()) == nullptr) return std::perror("mkdtemp"), 1;
  const std::string path = directory + "/sales.db";
  make(path);
  shoal::Pool pool(shoal::cpu_count(), connect, path);
  std::vector<int> shops(kShops);
  std::iota(shops.begin(), shops.end(), 0);
  const auto each = shoal::progress(pool.map_async(takings, shops), "shops");
  const auto here = sqlite::Database(path).query(
      "SELECT sum(price) FROM sales GROUP BY shop ORDER BY shop");
  std::filesystem::remove_all(directory);
  std::printf("%zu shops took %ld, %s one query says\n", each.size(),
              std::accumulate(each.begin(), each.end(), 0L),
              each == here ? "as" : "UNLIKE what");
  return each == here ? 0 : 1;
}
