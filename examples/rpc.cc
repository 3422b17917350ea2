// Remote procedure calls by name: a server accepts connections and answers
// typed requests; clients are processes that know nothing but the name.
//   ./bazelw run -c opt //examples:rpc

#include <shoal/shoal.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

struct Request {
  std::string method;
  std::vector<double> arguments;
};
struct Response {
  double value = 0;
  std::string error = {};
};
Response answer(const Request& request) {
  double sum = 0, product = 1;
  for (const double x : request.arguments) sum += x, product *= x;
  if (request.method == "sum") return {sum};
  if (request.method == "product") return {product};
  return {.error = "no method " + request.method};
}

void serve(const std::string& name, int clients) {
  shoal::Listener listener(name);
  std::vector<shoal::Connection> connections;
  while (clients > 0 || !connections.empty()) {
    if (clients > 0) connections.push_back(listener.accept()), --clients;
    std::vector<shoal::Waitable> all(connections.begin(), connections.end());
    for (const std::size_t i : shoal::wait(all)) try {
        connections[i].send(answer(connections[i].recv<Request>()));
      } catch (const shoal::EndOfFile&) {  // it hung up, or was killed
        connections[i].close();
      }
    std::erase_if(connections, [](auto& each) { return each.closed(); });
  }
}

void call(const std::string& name) {
  shoal::Connection server = shoal::connect(name);  // waits until it is there
  for (const char* method : {"sum", "product", "median"}) {
    server.send(Request{method, {2, 3, 7}});
    const auto response = server.recv<Response>();
    std::printf("%d: %s(2, 3, 7) = %g %s\n", getpid(), method, response.value,
                response.error.c_str());
  }
}

int main() {
  const auto name = "rpc." + std::to_string(getpid());
  shoal::Process server(serve, name, 2), one(call, name), other(call, name);
  for (auto* process : {&one, &other, &server}) process->start();
  for (auto* process : {&one, &other, &server}) process->join();
  return server.exitcode() == 0 && one.exitcode() == 0 ? 0 : 1;
}
