// A tour of shoal: each verb across real processes, a few lines each, and then
// real work. Every line says in brackets which process printed it.
//
//   ./bazelw run -c opt //examples:tour              # about ten seconds
//   ./bazelw run -c opt //examples:tour -- DIRECTORY # counts in there instead

#include <shoal/shoal.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <mutex>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "shoal/examples/identifiers.h"
#include "shoal/examples/loopback.h"
#include "shoal/examples/word_count_job.h"

namespace {

using namespace std::chrono_literals;

// ---- printing ----

void heading(std::string_view text) {
  std::cout << "\n== " << text << std::endl;
}

// One write a line, so that lines of several processes don't mix.
template <class... Parts>
void say(const Parts&... parts) {
  std::ostringstream line;
  line << "  [" << getpid() << "] ";
  (line << ... << parts) << '\n';
  std::cout << line.str() << std::flush;
}

template <class Range>
std::string list(const Range& values) {
  std::ostringstream text;
  const char* separator = "[";
  for (const auto& value : values) {
    text << separator << value;
    separator = ", ";
  }
  text << ']';
  return text.str();
}

// ---- what the workers of the pool run: plain functions ----

std::tuple<std::string, std::string, std::vector<int>> greet(
    const std::string& text, int number) {
  say("greet(\"", text, "\", ", number, ") runs here, in a worker");
  return {text + std::to_string(number), "tea test", {2222, 5, 356}};
}

struct Square {  // an aggregate travels without further ado
  int value;
  pid_t by;
};
Square square(int x) {
  std::this_thread::sleep_for(2ms);  // long enough for others to take a share
  return {x * x, getpid()};
}

int multiply(int a, int b) { return a * b; }

int element(const std::vector<int>& values, std::size_t index) {
  return values.at(index);
}

struct OutOfTea : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void brew() { throw OutOfTea("the tin is empty"); }

int die(int signal) { return raise(signal); }

// ---- Pool ----

void tour_of_apply(shoal::Pool& pool) {
  heading("pool.apply: a function of two arguments runs in a worker");
  auto [first, second, numbers] = pool.apply(greet, "hello,world", 1);
  say("is the parent and has the result, a tuple:");
  std::cout << first << '\n' << second << '\n' << list(numbers) << std::endl;

  heading("pool.apply_async: the result is fetched later");
  shoal::AsyncResult<int> product = pool.apply_async(multiply, 6, 7);
  say("does something else meanwhile");
  say("6 * 7 = ", product.get(5s));  // TimeoutError after five seconds
  say("successful: ", product.successful() ? "yes" : "no");
}

void tour_of_map(shoal::Pool& pool) {
  heading("pool.map: a function over a range, shared out among the workers");
  for (const Square& result : pool.map(square, {1, 2, 3, 4, 5, 6}))
    say(result.value, " by ", result.by);

  heading("pool.map_async");
  auto results = pool.map_async(square, std::vector<int>(100, 3));
  while (!results.wait(50ms)) say("still waiting");
  say("ready: ", results.ready() ? "yes" : "no", ", ", results.get().size(),
      " results");

  heading("pool.starmap: a range of tuples, a function of several arguments");
  const std::vector<std::tuple<int, int>> pairs = {{1, 2}, {3, 4}, {5, 6}};
  say(list(pool.starmap(multiply, pairs)));
}

void tour_of_errors(shoal::Pool& pool) {
  heading("an exception arrives with its type");
  try {
    pool.apply(element, std::vector<int>{1, 2, 3}, std::size_t{7});
  } catch (const std::out_of_range& error) {
    say("caught std::out_of_range: ", error.what());
  }
  try {
    pool.apply(brew);
  } catch (const shoal::RemoteError& error) {
    say("caught ", error.type_name(), " from ", error.pid(), ": ",
        error.message());
  }

  heading("a worker is killed: its task says so, all others complete");
  auto doomed = pool.apply_async(die, SIGKILL);
  auto others = pool.map_async(square, {1, 2, 3, 4, 5, 6});
  try {
    doomed.get();
  } catch (const shoal::WorkerDied& error) {
    say("caught WorkerDied: ", error.pid(), " ended with ", error.exitcode());
  }
  for (const Square& result : others.get())
    say(result.value, " by ", result.by);
}

// ---- Process and what processes share: handles are passed by value ----

void tour_of_queue() {
  heading("Process and Queue: one process puts, another gets");
  struct Order {
    int number;
    pid_t from;
  };
  const auto put_orders = [](shoal::Queue<Order> orders) {
    for (int number = 1; number <= 3; ++number) {
      orders.put({number, getpid()});
      say("put ", number);
    }
    orders.shutdown();  // those who get will have what is left, then ShutDown
  };
  const auto get_orders = [](shoal::Queue<Order> orders) {
    try {
      for (;;) {
        const Order order = orders.get();
        say("got ", order.number, " from ", order.from);
      }
    } catch (const shoal::ShutDown&) {
      say("the queue was shut down");
    }
  };
  shoal::Queue<Order> orders(16);
  shoal::Process kitchen(get_orders, orders);
  shoal::Process waiter(put_orders, orders);
  kitchen.start();
  waiter.start();
  waiter.join();
  kitchen.join();
  say("their exit codes are ", *waiter.exitcode(), " and ",
      *kitchen.exitcode());
}

void tour_of_pipe() {
  heading("Pipe: two ends, and whatever a message can be goes either way");
  using Letter = std::tuple<int, std::optional<double>, std::string>;
  const auto answer = [](shoal::Connection parent) {
    parent.send(Letter(42, std::nullopt, "hello"));
    say("was asked: ", parent.recv<std::string>());
    parent.send(parent.recv<std::vector<double>>().size());
  };
  auto [here, there] = shoal::Pipe();
  shoal::Process child(answer, std::move(there));
  child.start();
  const auto [number, nothing, text] = here.recv<Letter>();
  say("received ", number, ", ", nothing ? "something" : "nothing", ", ", text);
  here.send(std::string("how many numbers are these?"));
  here.send(std::vector<double>(1'000'000));  // 8 MB, longer than the ring
  say("was answered: ", here.recv<std::size_t>());
  child.join();
  try {
    here.recv<int>();
  } catch (const shoal::EndOfFile&) {
    say("the other end is closed");
  }
}

void tour_of_handles() {
  heading("an echo server: accepted sockets go to worker processes by a Queue");
  const auto serve = [](shoal::Queue<shoal::Fd> clients) {
    try {
      for (;;) say("echoed ", loopback::echo(clients.get()), " bytes");
    } catch (const shoal::ShutDown&) {
    }
  };
  const shoal::Fd server = loopback::listen(0);
  shoal::Queue<shoal::Fd> clients;
  shoal::Process one(serve, clients), other(serve, clients);
  one.start();
  other.start();
  for (int n = 0; n < 4; ++n) {
    shoal::Process client(
        [](in_port_t port) {
          say("is a client and hears: ", loopback::ask(port, "hello"));
        },
        loopback::port_of(server));
    client.start();
    clients.put(loopback::accept(server));
    client.join();
  }
  clients.shutdown();
  one.join();
  other.join();
}

void tour_of_shared_state() {
  heading("Value and Array: a child changes what its parent sees");
  shoal::Value<int> hits(40);
  shoal::Array<double> field = {1, 2, 3};
  const auto change = [](shoal::Value<int> hits, shoal::Array<double> field) {
    hits.fetch_add(2);
    for (double& x : field) x *= 10;
    say("has changed both");
  };
  say("hits ", hits.get(), ", field ", list(field));
  shoal::Process child(change, hits, field);
  child.start();
  child.join();
  say("hits ", hits.get(), ", field ", list(field));

  heading("Lock: two processes add to one number that is not atomic");
  shoal::Lock lock;
  shoal::Array<int> sum(1);
  const auto add = [](shoal::Lock lock, shoal::Array<int> sum) {
    for (int i = 0; i < 10'000; ++i) {
      const std::lock_guard guard(lock);
      sum[0] += 1;
    }
    say("has added 10000");
  };
  shoal::Process one(add, lock, sum), other(add, lock, sum);
  one.start();
  other.start();
  one.join();
  other.join();
  say("the sum is ", sum[0]);
}

// The memory of a named Array is a NumPy file.
void tour_of_numpy() {
  heading("NumPy looks at an Array while it is there");
  if (std::system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0) {
    say("python3-numpy is not installed here");
    return;
  }
  const std::string name = "tour." + std::to_string(getpid());
  auto field = shoal::Array<double>::create(name, shoal::Shape{2, 3});
  field(1, 2) = 40;
  const std::string python =
      "import os, sys, numpy\n"
      "a = numpy.load(sys.argv[1], mmap_mode=\"r+\")\n"
      "print(f\"  [{os.getpid()}] NumPy sees {a.tolist()} and adds 2\")\n"
      "a[1, 2] += 2\n";
  const int status = std::system(
      ("/usr/bin/python3 -c '" + python + "' /dev/shm/shoal." + name).c_str());
  shoal::unlink(name);
  if (status != 0) throw std::runtime_error("NumPy failed");
  say("field(1, 2) is ", field(1, 2));
}

void tour_of_manager() {
  heading("Manager: a dictionary that grows in a process of its own");
  shoal::Manager manager;
  auto words = manager.dict<std::string, int>();
  auto lists = manager.dict<std::string, shoal::List<int>>();  // nested
  lists.set("squares", manager.list<int>());
  const auto work = [](auto words, auto lists) {
    for (const char* word : {"to", "be", "or", "not", "to", "be"})
      words.update(
          word, [](int n) { return n + 1; }, 0);  // nothing is lost
    for (int i = 1; i < 4; ++i) lists.at("squares").append(i * i);
    say("has counted words, and appended");
  };
  shoal::Process one(work, words, lists), other(work, words, lists);
  one.start();
  other.start();
  one.join();
  other.join();
  for (const auto& [word, count] : words.items()) say(word, ": ", count);
  auto squares = lists.at("squares");
  squares.sort();
  say("squares ", list(squares.copy()));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto directories = word_count::directories({argv + 1, argv + argc});
    const auto files = identifiers::find_files(directories);
    const int processes = shoal::cpu_count();
    say("is the parent; ", processes, " processes can run at once here");
    {
      shoal::Pool pool(2);
      tour_of_apply(pool);
      tour_of_map(pool);
      tour_of_errors(pool);
      pool.close();
      pool.join();
    }
    tour_of_queue();
    tour_of_pipe();
    tour_of_handles();
    tour_of_shared_state();
    tour_of_numpy();
    tour_of_manager();

    heading("real work with pool.map: identifiers in C and C++ files under " +
            list(directories));
    return word_count::run(files, processes) ? 0 : 1;
  } catch (const identifiers::NoInput& error) {
    std::cerr << "tour: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "tour: " << error.what() << '\n';
    return 1;
  }
}
