//! Products through cuBLASLt. The algorithm for a product is asked for once, and then kept: asking costs more time than
//! a small product, and the same algorithm gives the same bits.

use crate::gpu::{Address, Factor, Gemm, GpuError, Number, WORKSPACE_BYTES};
use cudarc::cublaslt::{result as lt, sys};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// What an algorithm depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    sizes: [usize; 3],
    strides: [usize; 3],
    batch: usize,
    batch_strides: [usize; 3],
    transposed: [bool; 2],
    bf16: [bool; 2],
    /// The largest power of two, up to 256, that divides an address.
    alignment: [u32; 3],
}

impl Key {
    fn new(gemm: &Gemm) -> Self {
        let alignment = |at: Address| 1u32 << at.0.trailing_zeros().min(8);
        Self {
            sizes: [gemm.m, gemm.n, gemm.k],
            strides: [gemm.a.row_stride, gemm.b.row_stride, gemm.c_row_stride],
            batch: gemm.batch,
            batch_strides: [
                gemm.a.batch_stride,
                gemm.b.batch_stride,
                gemm.c_batch_stride,
            ],
            transposed: [gemm.a.transposed, gemm.b.transposed],
            bf16: [gemm.a.number, gemm.c_number].map(|number| number == Number::Bf16),
            alignment: [gemm.a.at, gemm.b.at, gemm.c].map(alignment),
        }
    }
}

/// An algorithm with the descriptions of its operands.
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    /// Of the right factor, the left one and the result: cuBLASLt counts columns first.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: they were created and not destroyed. A failure only leaves memory behind.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.product);
            for layout in self.layouts {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

/// cuBLASLt on one stream.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    stream: sys::cudaStream_t,
    workspace: Address,
    tf32: bool,
    plans: Mutex<HashMap<Key, Plan>>,
}

// SAFETY: the library may be called from any thread; the plans, which are only read after they are made, are behind a
// lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

fn failed(error: lt::CublasError) -> GpuError {
    GpuError::Failed {
        operation: "a product of cuBLASLt".into(),
        reason: format!("{:?}", error.0),
    }
}

fn number_type(number: Number) -> sys::cudaDataType {
    match number {
        Number::F32 => sys::cudaDataType::CUDA_R_32F,
        Number::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

impl Products {
    /// cuBLASLt, which must be there, with scratch memory of [`WORKSPACE_BYTES`]. With `tf32`, factors in f32 are
    /// rounded to 10 bits of mantissa.
    pub(super) fn new(
        stream: sys::cudaStream_t,
        workspace: Address,
        tf32: bool,
    ) -> Result<Self, GpuError> {
        Ok(Self {
            handle: lt::create_handle().map_err(failed)?,
            stream,
            workspace,
            tf32,
            plans: Mutex::default(),
        })
    }

    /// Queues a product.
    ///
    /// # Safety
    /// As [`crate::Gpu::gemm`].
    pub(super) unsafe fn multiply(&self, gemm: &Gemm) -> Result<(), GpuError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Key::new(gemm);
        let plan = match plans.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(self.plan(gemm, &key).map_err(failed)?)
            }
        };
        let [first, second, out] = plan.layouts;
        let pointer = |at: Address| at.0 as *mut c_void;
        // SAFETY: the plan's objects live, and describe these operands; the workspace has the bytes that were allowed.
        unsafe {
            lt::matmul(
                self.handle,
                plan.product,
                (&raw const gemm.alpha).cast(),
                (&raw const gemm.beta).cast(),
                pointer(gemm.b.at),
                first,
                pointer(gemm.a.at),
                second,
                pointer(gemm.c),
                out,
                pointer(gemm.c),
                out,
                &plan.algorithm,
                pointer(self.workspace),
                WORKSPACE_BYTES,
                self.stream,
            )
        }
        .map_err(failed)
    }

    /// The description of a product. Row by row, `C = A·B` is column by column `Cᵀ = Bᵀ·Aᵀ`: so the factors change
    /// places, and a matrix that is stored row by row is already the transpose that is wanted.
    fn plan(&self, gemm: &Gemm, key: &Key) -> Result<Plan, lt::CublasError> {
        let compute = match (gemm.a.number, self.tf32) {
            (Number::F32, true) => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let product = lt::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F)?;
        use sys::cublasLtMatmulDescAttributes_t as Of;
        for (attribute, factor) in [
            (Of::CUBLASLT_MATMUL_DESC_TRANSA, &gemm.b),
            (Of::CUBLASLT_MATMUL_DESC_TRANSB, &gemm.a),
        ] {
            let transposed = i32::from(factor.transposed);
            // SAFETY: the description lives; cublasOperation_t is an i32, 0 for N and 1 for T.
            unsafe {
                lt::set_matmul_desc_attribute(
                    product,
                    attribute,
                    (&raw const transposed).cast(),
                    4,
                )?;
            }
        }
        let stored = |factor: &Factor, rows, cols| match factor.transposed {
            false => (rows, cols),
            true => (cols, rows),
        };
        let (b, a) = (
            stored(&gemm.b, gemm.k, gemm.n),
            stored(&gemm.a, gemm.m, gemm.k),
        );
        let layouts = [
            layout(
                gemm,
                gemm.b.number,
                b,
                gemm.b.row_stride,
                gemm.b.batch_stride,
            )?,
            layout(
                gemm,
                gemm.a.number,
                a,
                gemm.a.row_stride,
                gemm.a.batch_stride,
            )?,
            layout(
                gemm,
                gemm.c_number,
                (gemm.m, gemm.n),
                gemm.c_row_stride,
                gemm.c_batch_stride,
            )?,
        ];
        let algorithm = self.algorithm(product, layouts, key)?;
        Ok(Plan {
            product,
            layouts,
            algorithm,
        })
    }

    fn algorithm(
        &self,
        product: sys::cublasLtMatmulDesc_t,
        [first, second, out]: [sys::cublasLtMatrixLayout_t; 3],
        key: &Key,
    ) -> Result<sys::cublasLtMatmulAlgo_t, lt::CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Of;
        let preference = lt::create_matmul_pref()?;
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the preference lives, and the value has as many bytes.
            unsafe { lt::set_matmul_pref_attribute(preference, attribute, value, bytes) }
        };
        let [a, b, c] = key.alignment;
        let bytes = WORKSPACE_BYTES;
        // Parts of a sum may be added up in f32 only, not in the type of the result.
        let reductions: u32 = 2;
        let found = set(
            Of::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const bytes).cast(),
            size_of_val(&bytes),
        )
        .and_then(|()| {
            set(
                Of::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                (&raw const reductions).cast(),
                4,
            )
        })
        .and_then(|()| {
            [
                (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
                (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
                (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
                (Of::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c),
            ]
            .iter()
            .try_for_each(|(attribute, value)| set(*attribute, (&raw const *value).cast(), 4))
        })
        .and_then(|()| {
            // SAFETY: all objects live.
            unsafe {
                lt::get_matmul_algo_heuristic(
                    self.handle,
                    product,
                    first,
                    second,
                    out,
                    out,
                    preference,
                )
            }
        });
        // SAFETY: it was created and is not used any more.
        let _ = unsafe { lt::destroy_matmul_pref(preference) };
        Ok(found?.algo)
    }
}

/// The layout of a matrix `[rows, cols]` that is stored row by row: column by column it is `[cols, rows]`.
fn layout(
    gemm: &Gemm,
    number: Number,
    (rows, cols): (usize, usize),
    row_stride: usize,
    batch_stride: usize,
) -> Result<sys::cublasLtMatrixLayout_t, lt::CublasError> {
    use sys::cublasLtMatrixLayoutAttribute_t as Of;
    let layout = lt::create_matrix_layout(
        number_type(number),
        cols as u64,
        rows as u64,
        row_stride as i64,
    )?;
    if gemm.batch > 1 {
        let (count, offset) = (gemm.batch as i32, batch_stride as i64);
        // SAFETY: the layout lives, and the values have these sizes.
        unsafe {
            lt::set_matrix_layout_attribute(
                layout,
                Of::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                (&raw const count).cast(),
                4,
            )?;
            lt::set_matrix_layout_attribute(
                layout,
                Of::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                (&raw const offset).cast(),
                8,
            )?;
        }
    }
    Ok(layout)
}

impl Drop for Products {
    fn drop(&mut self) {
        // Plans are destroyed before the library's handle.
        self.plans
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        // SAFETY: it was created and not destroyed.
        let _ = unsafe { lt::destroy_handle(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gemm(at: u64) -> Gemm {
        let factor = Factor {
            at: Address(at),
            number: Number::Bf16,
            row_stride: 8,
            transposed: false,
            batch_stride: 0,
        };
        Gemm {
            m: 8,
            n: 8,
            k: 8,
            a: factor,
            b: factor,
            c: Address(512),
            c_number: Number::F32,
            c_row_stride: 8,
            c_batch_stride: 0,
            alpha: 1.0,
            beta: 0.0,
            batch: 1,
        }
    }

    #[test]
    fn an_algorithm_is_kept_for_shapes_types_and_alignments() {
        // The same product elsewhere has the same plan, but not one at addresses that are less aligned.
        assert_eq!(Key::new(&gemm(256)), Key::new(&gemm(1024)));
        assert_ne!(Key::new(&gemm(256)), Key::new(&gemm(16)));
        let transposed = |g: Gemm| Gemm {
            a: Factor {
                transposed: true,
                ..g.a
            },
            ..g
        };
        assert_ne!(Key::new(&gemm(256)), Key::new(&transposed(gemm(256))));
        let added = Gemm {
            beta: 1.0,
            ..gemm(256)
        };
        assert_eq!(Key::new(&gemm(256)), Key::new(&added));
    }
}
