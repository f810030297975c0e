"""Options of ``torch._inductor`` with PyTorch's defaults; they change nothing here."""

from __future__ import annotations

from typing import Any

from .._torch.options import Options, patch_of

aggressive_fusion = False
allow_buffer_reuse = True
aot_inductor: Any = Options(
    output_path="",
    debug_compile=False,
    package=False,
    use_runtime_constant_folding=False,
)
assert_indirect_indexing = True
autotune_local_cache = True
autotune_remote_cache: Any = None
benchmark_fusion = False
benchmark_kernel = False
bundled_autotune_remote_cache: Any = None
combo_kernels = False
comment_origin = False
compile_threads = 1
conv_1x1_as_mm = False
coordinate_descent_check_all_directions = False
coordinate_descent_tuning = False
cpp: Any = Options(
    threads=-1,
    simdlen=None,
    min_chunk_size=512,
    enable_kernel_profile=False,
    weight_prepack=True,
    descriptive_names="original_aten",
    dynamic_threads=False,
    enable_floating_point_contract_flag="off",
)
cpp_wrapper = False
cpu_backend = "cpp"
cuda: Any = Options(arch=None, version=None, compile_opt_level="-O1", use_fast_math=False)
cuda_backend = "triton"
dce = False
debug = False
disable_progress = True
emulate_precision_casts = False
epilogue_fusion = True
fallback_random = False
force_disable_caches = False
force_fuse_int_mm_with_mul = False
force_same_precision = False
freezing = False
fx_graph_cache = True
fx_graph_remote_cache: Any = None
graph_partition = True
implicit_fallbacks = True
inplace_buffers = True
joint_custom_post_pass: Any = None
joint_custom_pre_pass: Any = None
keep_output_stride = True
layout_optimization = True
max_autotune = False
max_autotune_conv_backends = "ATEN,TRITON"
max_autotune_gemm = False
max_autotune_gemm_backends = "ATEN,TRITON,CPP"
max_autotune_pointwise = False
memory_planning = False
nan_asserts = False
pattern_matcher = True
permute_fusion = False
post_grad_custom_post_pass: Any = None
post_grad_custom_pre_pass: Any = None
pre_grad_custom_pass: Any = None
profile_bandwidth = False
profiler_mark_wrapper_call = False
realize_opcount_threshold: Any = None
reorder_for_compute_comm_overlap = False
reorder_for_locality = True
reorder_for_peak_memory = True
rocm: Any = Options(arch=[])
search_autotune_cache = False
shape_padding = True
size_asserts = True
split_reductions = True
trace: Any = Options(
    enabled=False,
    debug_dir=None,
    debug_log=False,
    info_log=False,
    fx_graph=True,
    graph_diagram=False,
)
triton: Any = Options(
    cudagraphs=False,
    cudagraph_trees=True,
    cudagraph_support_input_mutation=True,
    cudagraph_skip_dynamic_graphs=False,
    unique_kernel_names=True,
    unique_user_kernel_names=False,
    descriptive_names="original_aten",
    autotune_at_compile_time=None,
    autotune_pointwise=True,
    autotune_cublasLt=True,
    dense_indexing=False,
    persistent_reductions=True,
    use_block_ptr=False,
    prefer_nd_tiling=False,
    multi_kernel=0,
    tiling_prevents_pointwise_fusion=True,
    max_tiles=None,
)
unroll_reductions_threshold = 8
use_mixed_mm = True
verbose_progress = False
warn_mix_layout = False
worker_start_method = "subprocess"

patch = patch_of(__name__)
