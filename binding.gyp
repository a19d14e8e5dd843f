{
  "target_defaults": {
    "include_dirs": ["native", "<!(node -p \"require('node-addon-api').include_dir\")"],
    "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_DISABLE_DEPRECATED", "NAPI_CPP_EXCEPTIONS", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
    "cflags!": ["-O3"],
    "cflags_cc!": ["-fno-rtti", "-std=gnu++17", "-O3"],
    "cflags_cc": ["-std=c++20", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-Wall", "-Wextra"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++20",
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "MACOSX_DEPLOYMENT_TARGET": "11.0",
      "OTHER_CPLUSPLUSFLAGS": ["-ffp-contract=off", "-fno-math-errno"]
    },
    "msvs_settings": {
      "VCCLCompilerTool": { "ExceptionHandling": 1, "AdditionalOptions": ["/std:c++20", "/fp:precise"] }
    }
  },
  "targets": [
    {
      "target_name": "fast",
      "type": "static_library",
      "sources": ["<!@(node -p \"require('./native/sources.json').core.join(' ')\")"],
      "cflags_cc!": ["-fno-exceptions"],
      "cflags_cc": ["-O2", "-fexceptions"],
      "xcode_settings": { "GCC_OPTIMIZATION_LEVEL": "2" }
    },
    {
      "target_name": "kernels",
      "type": "static_library",
      "sources": ["<!@(node -p \"require('./native/sources.json').kernels.join(' ')\")"],
      "cflags_cc": ["-O2"],
      "conditions": [["OS=='linux'", { "cflags_cc": ["-fno-exceptions", "-fno-asynchronous-unwind-tables"] }]],
      "xcode_settings": { "GCC_OPTIMIZATION_LEVEL": "2" }
    },
    {
      "target_name": "residual_skip",
      "dependencies": ["fast", "kernels"],
      "sources": ["<!@(node -p \"const s = require('./native/sources.json'); [...s.small, ...s.addon].join(' ')\")"],
      "cflags_cc!": ["-fno-exceptions"],
      "cflags_cc": ["-Os", "-fexceptions"],
      "conditions": [["OS=='linux'", { "ldflags": ["-Wl,--strip-all", "-Wl,-z,noseparate-code", "-Wl,--version-script=<(module_root_dir)/native/exports.map"] }]],
      "xcode_settings": { "GCC_OPTIMIZATION_LEVEL": "s" }
    }
  ]
}
