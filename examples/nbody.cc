// Gravity between all pairs of bodies: each process moves its part of a shared
// Array of structs, all of them read all of it. Energy is conserved.
//   ./bazelw run -c opt //examples:nbody           # as many processes as CPUs
//   ./bazelw run -c opt //examples:nbody -- PROCESSES BODIES STEPS

#include <shoal/shoal.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

struct Body {
  double x, y, z, vx, vy, vz, ax, ay, az, mass;
};
using Bodies = shoal::Array<Body>;
constexpr double kStep = 1e-4;
constexpr double kSoft = 1e-4;  // so that close ones don't fly apart

void pull(const Bodies& bodies, Body& body) {
  body.ax = body.ay = body.az = 0;
  for (const Body& other : bodies) {
    const double x = other.x - body.x, y = other.y - body.y,
                 z = other.z - body.z;
    const double square = x * x + y * y + z * z + kSoft;
    const double force = other.mass / (square * std::sqrt(square));
    body.ax += force * x, body.ay += force * y, body.az += force * z;
  }
}

// Velocity Verlet: half a kick, a drift, and half a kick by the new forces.
void move(Bodies bodies, shoal::Barrier all, std::size_t first,
          std::size_t last, int steps) {
  const auto mine = bodies.slice(first, last);
  const auto kick = [](Body& body) {
    body.vx += kStep / 2 * body.ax, body.vy += kStep / 2 * body.ay,
        body.vz += kStep / 2 * body.az;
  };
  for (Body& body : mine) pull(bodies, body);
  for (int n = 0; n < steps; ++n) {
    all.wait();  // the forces are known
    for (Body& body : mine) {
      kick(body);
      body.x += kStep * body.vx, body.y += kStep * body.vy,
          body.z += kStep * body.vz;
    }
    all.wait();  // all have moved
    for (Body& body : mine) pull(bodies, body), kick(body);
  }
}

double energy(const Bodies& bodies) {
  double sum = 0;
  for (const Body& a : bodies) {
    sum += a.mass / 2 * (a.vx * a.vx + a.vy * a.vy + a.vz * a.vz);
    for (const Body* b = &a + 1; b != bodies.end(); ++b)
      sum -= a.mass * b->mass /
             std::sqrt(std::pow(a.x - b->x, 2) + std::pow(a.y - b->y, 2) +
                       std::pow(a.z - b->z, 2) + kSoft);
  }
  return sum;
}

int main(int argc, char** argv) {
  const int processes = argc > 1 ? std::atoi(argv[1]) : shoal::cpu_count();
  const std::size_t count = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 600;
  const int steps = argc > 3 ? std::atoi(argv[3]) : 500;
  Bodies bodies(count);
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (Body& body : bodies)
    body = {normal(random),
            normal(random),
            normal(random),
            normal(random) / 3,
            normal(random) / 3,
            normal(random) / 3,
            0,
            0,
            0,
            1.0 / static_cast<double>(count)};
  const double before = energy(bodies);
  const shoal::Barrier all(processes);
  std::vector<shoal::Process> workers;
  for (int n = 0; n < processes; ++n) {
    const auto part = [&](int k) {
      return count * static_cast<std::size_t>(k) /
             static_cast<std::size_t>(processes);
    };
    workers.emplace_back(move, bodies, all, part(n), part(n + 1), steps)
        .start();
  }
  for (shoal::Process& worker : workers) worker.join();
  const double after = energy(bodies);
  const double error = std::abs((after - before) / before);
  std::printf(
      "%zu bodies, %d steps, %d processes: energy %.9f, then %.9f, off "
      "by %.1e\n",
      count, steps, processes, before, after, error);
  return error < 1e-4 ? 0 : 1;
}
