"""Options of ``torch._dynamo`` with PyTorch's defaults; they change nothing here."""

from __future__ import annotations

from typing import Any

from .._torch.options import patch_of

accumulated_cache_size_limit = accumulated_recompile_limit = 256
allow_rnn = False
allow_unspec_int_on_nn_module = False
assume_static_by_default = True
automatic_dynamic_shapes = True
cache_size_limit = recompile_limit = 8
caching_precompile = False
capture_dynamic_output_shape_ops = False
capture_func_transforms = True
capture_scalar_outputs = False
compiled_autograd = False
debug_dir_root = ""
disable = False
do_not_emit_runtime_asserts = False
dynamic_shapes = True
enable_compiler_collectives = False
enable_cpp_guard_manager = True
error_on_nested_fx_trace = True
error_on_recompile = False
fail_on_recompile_limit_hit = False
force_nn_module_property_static_shapes = True
force_parameter_static_shapes = True
guard_nn_modules = True
ignore_logger_methods: Any = set()
inline_inbuilt_nn_modules = True
install_free_tensors = False
log_file_name = None
log_level = None
numpy_default_complex = "complex128"
numpy_default_float = "float64"
numpy_default_int = "int64"
optimize_ddp: Any = True
output_code = False
prefer_deferred_runtime_asserts_over_guards = False
raise_on_ctx_manager_usage = True
recompile_limit_type = None
reorderable_logging_functions: Any = set()
repro_after = None
repro_level = 2
report_guard_failures = True
rewrite_assert_with_torch_assert = True
skip_nnmodule_hook_guards = True
specialize_float = False
specialize_int = False
suppress_errors = False
trace_numpy = True
traceable_tensor_subclasses: Any = set()
verbose = False

patch = patch_of(__name__)
