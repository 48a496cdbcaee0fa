/* merge.c: runs a template over the variables of a recipient. Values are never read as templates themselves. */
#include "merge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int merge_open_named(struct merge *merge, const struct values *read_global, const char *global, const char *own,
                     const struct value_names *names, char *error, size_t error_bytes) {
    merge->has_own = own != NULL;
    merge->has_global = read_global == NULL && global != NULL;
    merge->global = merge->has_global ? &merge->read_global : read_global;
    merge->built_in = NULL;
    merge->work = (struct merge_work){.steps = 0};
    int result = merge->has_global ? values_read(&merge->read_global, global, "merge_global_data", error, error_bytes) : 0;
    if (result != 0 || own == NULL)
        return result;
    result = values_read_named(&merge->own, names, own, "merge_data", error, error_bytes);
    if (result != 0 && merge->has_global)
        values_free(&merge->read_global);
    return result;
}

int merge_open_over(struct merge *merge, const struct values *global, const char *own, char *error, size_t error_bytes) {
    return merge_open_named(merge, global, NULL, own, NULL, error, error_bytes);
}

int merge_open(struct merge *merge, const char *global, const char *own, char *error, size_t error_bytes) {
    return merge_open_named(merge, NULL, global, own, NULL, error, error_bytes);
}

void merge_close(struct merge *merge) {
    if (merge->has_own)
        values_free(&merge->own);
    if (merge->has_global)
        values_free(&merge->read_global);
}

void merge_built_in(struct merge *merge, const char *(*look_up)(void *context, const char *name), void *context) {
    merge->built_in = look_up;
    merge->context = context;
}

bool merge_is_template(const char *text) {
    return mustache_may_be(text);
}

/* The rest of a name, object by object; at each the whole rest first, since a member's name may have dots. */
static const struct value *look_deeper(struct merge_run *run, const struct value *object, const char *name, size_t length) {
    for (;;) {
        const struct value *value = value_member(object, name, length, value_hash(name, length), &run->work->members);
        const char *dot = memchr(name, '.', length);
        if (value != NULL || dot == NULL)
            return value;
        object = value_member(object, name, (size_t)(dot - name), value_hash(name, (size_t)(dot - name)), &run->work->members);
        length -= (size_t)(dot + 1 - name);
        name = dot + 1;
        if (object == NULL)
            return NULL;
    }
}

/* The member of an object for a name or its head; `values`: the object is theirs, and may have it at hand. */
static const struct value *member(struct merge_run *run, const struct values *values, const struct value *object, uint8_t number,
                                  const char *name, size_t length, uint32_t hash) {
    if (values != NULL && values->names != NULL && number != VALUES_UNNUMBERED)
        return values_numbered(values, number, &run->work->members);
    return value_member(object, name, length, hash, &run->work->members);
}

/* The value of a name in one object. *ends: it is decided here, even where it is missing: the object has the name's first word. */
static const struct value *look_in(struct merge_run *run, const struct values *values, const struct value *object,
                                   const struct mustache_op *name, bool *ends) {
    const struct value *value = member(run, values, object, name->number, name->text, name->length, name->hash);
    const struct value *head = value != NULL || name->head_length == 0
                                   ? NULL
                                   : member(run, values, object, name->head_number, name->text, name->head_length, name->head_hash);
    *ends = value != NULL || head != NULL;
    return head == NULL ? value : look_deeper(run, head, name->text + name->head_length + 1, name->length - name->head_length - 1);
}

static bool is_built_in(const struct mustache_op *name) {
    return name->length >= sizeof(MERGE_BUILT_IN) && memcmp(name->text, MERGE_BUILT_IN, sizeof(MERGE_BUILT_IN) - 1) == 0;
}

/* {{.}} */
static bool is_context(const struct mustache_op *name) {
    return name->length == 1 && name->text[0] == '.';
}

static const struct value *look_up_built_in(struct merge_run *run, const struct mustache_op *op) {
    char name[MUSTACHE_NAME_BYTES];
    size_t length = op->length - (sizeof(MERGE_BUILT_IN) - 1);
    memcpy(name, op->text + sizeof(MERGE_BUILT_IN) - 1, length);
    name[length] = '\0';
    const char *text = run->merge->built_in(run->merge->context, name);
    if (text == NULL)
        return NULL;
    run->built_in = (struct value){.kind = VALUE_STRING, .text = text, .length = (uint32_t)strlen(text), .size = 1};
    return &run->built_in;
}

/* From the innermost context outwards; the recipient's object and the global one are the outermost, and one behind the other. */
static const struct value *look_up(struct merge_run *run, const struct mustache_op *name) {
    const struct merge *merge = run->merge;
    if (merge->built_in != NULL && is_built_in(name))
        return look_up_built_in(run, name);
    const struct value *own = merge->has_own ? &merge->own.nodes[0] : NULL;
    const struct value *global = merge->global == NULL ? NULL : &merge->global->nodes[0];
    bool ends;
    if (is_context(name))
        return run->depth > 0 ? run->frames[run->depth - 1].item : own != NULL ? own : global;
    for (uint32_t i = run->depth; i-- > 0;) {
        const struct value *value = look_in(run, NULL, run->frames[i].item, name, &ends);
        if (ends)
            return value;
    }
    const struct value *value = look_in(run, own == NULL ? NULL : &merge->own, own, name, &ends);
    return value != NULL ? value : look_in(run, merge->global, global, name, &ends);
}

void merge_number(struct mustache *program, struct value_names *names) {
    for (uint32_t i = 0; i < program->count; i++) {
        struct mustache_op *op = &program->ops[i];
        bool looks_up = op->kind != MUSTACHE_LITERAL && op->kind != MUSTACHE_END;
        if (!looks_up || is_built_in(op) || is_context(op))
            continue;
        op->number = value_names_add(names, op->text, op->length, op->hash);
        if (op->head_length > 0)
            op->head_number = value_names_add(names, op->text, op->head_length, op->head_hash);
    }
}

void merge_run_begin(struct merge_run *run, const struct mustache *program, const struct merge *merge, struct merge_work *work) {
    run->program = program;
    run->merge = merge;
    run->work = work;
    run->own = merge != NULL && merge->has_own && merge->own.names != NULL ? &merge->own : NULL;
    run->next = program->ops;
    run->end = program->ops + program->count;
    run->depth = 0;
}

/* A section's value becomes the context: of a list one item after the other. */
static void enter(struct merge_run *run, const struct value *value) {
    struct merge_frame *frame = &run->frames[run->depth++];
    if (value == &run->built_in) {
        frame->built_in = *value;
        value = &frame->built_in;
    }
    frame->item = value->kind == VALUE_LIST ? value + 1 : value;
    frame->end = value + value->size;
    run->next++;
}

/* At the end of a section: once more with the next item, or on. */
static void leave(struct merge_run *run, const struct mustache_op *section) {
    run->next++;
    if (section->kind == MUSTACHE_INVERTED)
        return;
    struct merge_frame *frame = &run->frames[run->depth - 1];
    frame->item += frame->item->size;
    if (frame->item < frame->end)
        run->next = section + 1;
    else
        run->depth--;
}

__attribute__((noinline)) static int too_much_work(struct merge_work *work, char *error, size_t error_bytes) {
    if (work->steps > MUSTACHE_STEPS_MAX) {
        work->steps = MUSTACHE_STEPS_MAX; /* and so for what is tried in spite of it */
        snprintf(error, error_bytes, "a message has more than %d tags and texts, with its lists item by item", MUSTACHE_STEPS_MAX);
    } else {
        snprintf(error, error_bytes, "a message's names were looked for among more than %d members of merge data", MUSTACHE_MEMBERS_MAX);
    }
    return -EINVAL;
}

int merge_run_on(struct merge_run *run, struct merge_step *step, char *error, size_t error_bytes) {
    while (run->next < run->end) {
        const struct mustache_op *op = run->next, *partner = &run->program->ops[op->partner];
        const struct value *value = op->kind == MUSTACHE_LITERAL || op->kind == MUSTACHE_END ? NULL : look_up(run, op);
        if (run->work->steps++ >= MUSTACHE_STEPS_MAX || run->work->members > MUSTACHE_MEMBERS_MAX)
            return too_much_work(run->work, error, error_bytes);
        switch ((enum mustache_kind)op->kind) {
        case MUSTACHE_LITERAL:
        case MUSTACHE_VARIABLE:
            *step = (struct merge_step){.op = op, .value = value};
            run->next++;
            if (op->kind == MUSTACHE_LITERAL)
                return 1;
            if (value == NULL && run->merge->built_in != NULL && is_built_in(op))
                snprintf(error, error_bytes, "there is no variable \"%.*s\" for this message", (int)op->length, op->text);
            else if (value == NULL)
                snprintf(error, error_bytes, "the variable \"%.*s\" is missing: give it in merge_data or merge_global_data",
                         (int)op->length, op->text);
            else if (value->kind == VALUE_LIST || value->kind == VALUE_OBJECT)
                snprintf(error, error_bytes, "the variable \"%.*s\" is a list or an object, not a text or a number", (int)op->length,
                         op->text);
            else
                return 1;
            return -EINVAL;
        case MUSTACHE_SECTION:
            if (value_is_false(value))
                run->next = partner + 1;
            else
                enter(run, value);
            break;
        case MUSTACHE_INVERTED:
            run->next = value_is_false(value) ? op + 1 : partner + 1;
            break;
        case MUSTACHE_END:
            leave(run, partner);
            break;
        }
    }
    return 0;
}

int merge_check(const struct merge *merge, const char *name, char *error, size_t error_bytes) {
    struct mustache program;
    struct merge_run run;
    struct merge_step step;
    struct merge_work work = {.steps = 0};
    mustache_variable(&program, name);
    merge_run_begin(&run, &program, merge, &work);
    return merge_run_next(&run, &step, error, error_bytes) < 0 ? -EINVAL : 0;
}

int merge_variable(struct merge *merge, const struct mustache_op *variable, struct value *value, char *error, size_t error_bytes) {
    struct mustache program;
    struct merge_run run;
    struct merge_step step;
    program.ops = (struct mustache_op *)(uintptr_t)variable; /* it is only read */
    program.count = 1;
    merge_run_begin(&run, &program, merge, &merge->work);
    if (merge_run_next(&run, &step, error, error_bytes) < 0)
        return -EINVAL;
    *value = *step.value;
    return 0;
}

int merge_write(struct merge *merge, const struct mustache *program, bool html, struct writer *writer, char *error, size_t error_bytes) {
    struct merge_run run;
    struct merge_step step;
    int result;
    merge_run_begin(&run, program, merge, &merge->work);
    while ((result = merge_run_next(&run, &step, error, error_bytes)) > 0 && writer->error == 0)
        if (step.value == NULL)
            writer_bytes(writer, step.op->text, step.op->length);
        else
            value_write(step.value, html && !step.op->raw, writer);
    return result < 0 ? result : 0;
}

int merge_expand(struct merge *merge, const char *text, bool html, size_t max_bytes, char **out, char *error, size_t error_bytes) {
    struct writer writer = {.limit = max_bytes};
    struct mustache program;
    *out = NULL;
    int result = mustache_compile(&program, text, error, error_bytes);
    if (result != 0)
        return result;
    result = merge_write(merge, &program, html, &writer, error, error_bytes);
    mustache_free(&program);
    if (result == 0) {
        writer_byte(&writer, '\0');
        if (writer.error == 0 && writer.at - 1 > max_bytes)
            writer.error = -E2BIG;
        result = writer.error;
        if (result != 0)
            snprintf(error, error_bytes, result == -E2BIG ? "a text is over %zu bytes with its variables filled in" : "out of memory (%zu)",
                     max_bytes);
    }
    if (result != 0)
        free(writer.bytes);
    else
        *out = (char *)writer.bytes;
    return result;
}
