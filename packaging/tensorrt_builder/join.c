/* Joins NVIDIA's Python bindings of TensorRT to the libraries of TensorRT for RTX, which need no GPU to build a network.
 *
 * The bindings want libnvinfer, libnvonnxparser and libnvinfer_plugin. They call nine C functions of them; everything
 * else goes through the objects that these return. This file is compiled once for each of the three libraries. It passes
 * each call on to TensorRT for RTX, whose objects have the layout of TensorRT's, with one change: the version number
 * that a caller has to name is the one of TensorRT for RTX.
 *
 * Without TensorRT for RTX beside it every function returns nothing. That is enough to import the bindings of any
 * version and to look at their names.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>

#define ENGINE "libtensorrt_rtx.so.1"
#define PARSER "libtensorrt_onnxparser_rtx.so.1"

/* A function of a library in the folder of this one: the linker option -rpath '$ORIGIN' makes dlopen look there. */
static void *function(const char *library, const char *name) {
    void *handle = dlopen(library, RTLD_NOW); /* loaded once, however often it is opened */
    return handle ? dlsym(handle, name) : 0;
}

static int32_t version(const char *library, const char *name) {
    int32_t (*get)(void) = function(library, name);
    return get ? get() : 0;
}

static int32_t engine_version(void) { return version(ENGINE, "getInferLibVersion"); }

static void *create(const char *library, const char *name, void *object, int32_t number) {
    void *(*make)(void *, int32_t) = function(library, name);
    return make ? make(object, number) : 0;
}

static void *create_with_logger(const char *library, const char *name, void *object, void *logger, int32_t number) {
    void *(*make)(void *, void *, int32_t) = function(library, name);
    return make ? make(object, logger, number) : 0;
}

void *createInferBuilder_INTERNAL(void *logger, int32_t wanted) {
    (void)wanted;
    return create(ENGINE, "createInferBuilder_INTERNAL", logger, engine_version());
}

void *createInferRuntime_INTERNAL(void *logger, int32_t wanted) {
    (void)wanted;
    return create(ENGINE, "createInferRuntime_INTERNAL", logger, engine_version());
}

void *createInferRefitter_INTERNAL(void *engine, void *logger, int32_t wanted) {
    (void)wanted;
    return create_with_logger(ENGINE, "createInferRefitter_INTERNAL", engine, logger, engine_version());
}

void *getBuilderPluginRegistry(int32_t capability) {
    void *(*get)(int32_t) = function(ENGINE, "getBuilderPluginRegistry");
    return get ? get(capability) : 0;
}

void *getPluginRegistry(void) {
    void *(*get)(void) = function(ENGINE, "getPluginRegistry");
    return get ? get() : 0;
}

/* No plug-ins are there; no model of ours needs one. */
bool initLibNvInferPlugins(void *logger, const char *name_space) {
    (void)logger, (void)name_space;
    return true;
}

int32_t getNvOnnxParserVersion(void) { return version(PARSER, "getNvOnnxParserVersion"); }

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int32_t wanted) {
    (void)wanted;
    return create_with_logger(PARSER, "createNvOnnxParser_INTERNAL", network, logger, getNvOnnxParserVersion());
}

void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int32_t wanted) {
    (void)wanted;
    return create_with_logger(PARSER, "createNvOnnxParserRefitter_INTERNAL", refitter, logger, getNvOnnxParserVersion());
}
