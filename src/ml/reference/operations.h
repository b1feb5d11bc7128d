// The loops of the operations of Context, one function each: `out` is where the result goes, its
// shape and the operands' being checked already. Values are f32, sums are accumulated in double.
// What can still be wrong when a graph runs is an index that it was given: kInternal.
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "ml/context.h"
#include "ml/reference/node.h"

namespace ollama::ml::reference {

float activated(float x, Activation activation);

// f(a) and f(a, b) of each element, b repeated to a's shape.
template <typename F>
void map(const Node& out, const Node& a, F&& f) {
  for_elements(out.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    out.at(i0, i1, i2, i3) = f(a.at(i0, i1, i2, i3));
  });
}
template <typename F>
void map(const Node& out, const Node& a, const Node& b, F&& f) {
  const Shape& n = b.shape;
  for_elements(out.shape, [&](auto i0, auto i1, auto i2, auto i3) {
    out.at(i0, i1, i2, i3) =
        f(a.at(i0, i1, i2, i3), b.at(i0 % n[0], i1 % n[1], i2 % n[2], i3 % n[3]));
  });
}

void sum_rows(const Node& out, const Node& a);
void rms_norm(const Node& out, const Node& a, float epsilon);
void layer_norm(const Node& out, const Node& a, float epsilon);
// mask and sinks may be nullptr. A row of which the mask leaves nothing gives zeros.
void softmax(const Node& out, const Node& a, const Node* mask, const Node* sinks, float scale);
// factors may be nullptr.
void rope(const Node& out, const Node& x, const Node& positions, const Node* factors,
          const RopeOptions& options);
void mul_mat(const Node& out, const Node& w, const Node& x);
Result<> mul_mat_id(const Node& out, const Node& w, const Node& x, const Node& ids);
Result<> add_id(const Node& out, const Node& a, const Node& b, const Node& ids);
// Largest first; of equal values the one of the lower index.
void top_k(const Node& out, const Node& a);
Result<> get_rows(const Node& out, const Node& a, const Node& ids);
// Rows are rounded to out's type. Of equal indices the last one's row stays.
Result<> set_rows(const Node& out, const Node& src, const Node& ids);
void concat(const Node& out, const Node& a, const Node& b, int dim);
void repeat(const Node& out, const Node& a);
// The values of src in order, between floats and integers; not rounded. They may share a buffer.
void copy_values(const Node& out, const Node& src);

// Replaces out's values with what its type keeps of them.
void round_values(const Node& out);

}  // namespace ollama::ml::reference
