#pragma once
// The heat equation in two dimensions, as heat and live_plot solve it: explicit
// steps of a five-point stencil, the border held at its temperature.
//
//   Field a(shoal::Shape{rows, columns}), b = ...;
//   set_up(a); set_up(b);
//   run_strip(a, b, all, done, worker, workers, steps);  // in each process
//
// Source: forward Euler in time, central differences in space (FTCS), which is
// stable up to a step of 1/4.

#include <shoal/shoal.h>

#include <cstddef>
#include <functional>
#include <string>

namespace heat {

using Field = shoal::Array<double>;

// The cells of a field, row after row, wherever they lie.
class Plate {
 public:
  Plate(double* cells, std::size_t rows, std::size_t columns)
      : cells_(cells), rows_(rows), columns_(columns) {}
  Plate(Field& field)
      : Plate(field.data(), field.shape()[0], field.shape()[1]) {}

  std::size_t rows() const { return rows_; }
  std::size_t columns() const { return columns_; }
  double* row(std::size_t i) const { return cells_ + i * columns_; }

 private:
  double* cells_;
  std::size_t rows_;
  std::size_t columns_;
};

// A hot disc and a warm edge in a cold plate.
void set_up(Plate plate);

// All steps of one of `workers`, which has its strip of the rows; the field of
// the last moment is in `a` if `steps` is even. `done` counts steps.
void run_strip(Field a, Field b, shoal::Barrier all, shoal::Value<int> done,
               int worker, int workers, int steps);
// The same of any memory; `meet`, which ends each step, returns when all
// workers are there.
void advance_strip(Plate a, Plate b, int worker, int workers, int steps,
                   const std::function<void()>& meet);

// As a PNG, from black over red to white. Throws std::runtime_error.
void write_png(const Field& field, const std::string& path);

}  // namespace heat
