/* Programs: a list of operations recorded once as a CUDA graph, then launched as one. A decode step of a deep model is
 * hundreds of short kernels; launched one by one they would cost more than they run.
 */
#include "cuda/ops.h"

#include <stdlib.h>

struct program {
    uint64_t key;
    cudaGraphExec_t graph;
};

struct cuda_programs {
    struct program *program;
    int n, room;
    uint64_t recording; /* key of the program between begin and end */
};

static struct cuda_programs *programs_of(struct backend *be)
{
    struct cuda_state *s = cuda_state(be);
    if (!s->programs)
        s->programs = (struct cuda_programs *)calloc(1, sizeof *s->programs);
    CHECK(s->programs, "out of memory");
    return s->programs;
}

bool cuda_program_begin(struct backend *be, uint64_t key)
{
    struct cuda_programs *p = programs_of(be);
    cudaStream_t stream = cuda_state(be)->stream;
    if (cuda_failed(be))
        return false;
    for (int i = 0; i < p->n; i++) {
        if (p->program[i].key != key)
            continue;
        cuda_check_status(be, "program", cudaGraphLaunch(p->program[i].graph, stream));
        return false;
    }
    p->recording = key;
    cuda_check_status(be, "program_begin", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    return !cuda_failed(be);
}

static struct program *add(struct cuda_programs *p)
{
    if (p->n == p->room) {
        p->room = p->room ? 2 * p->room : 16;
        p->program = (struct program *)realloc(p->program, (size_t)p->room * sizeof *p->program);
        CHECK(p->program, "out of memory");
    }
    return &p->program[p->n++];
}

void cuda_program_end(struct backend *be)
{
    struct cuda_programs *p = programs_of(be);
    cudaStream_t stream = cuda_state(be)->stream;
    cudaGraph_t recorded = NULL;
    cudaGraphExec_t graph = NULL;
    cuda_check_status(be, "program_end", cudaStreamEndCapture(stream, &recorded));
    if (!cuda_failed(be))
        cuda_check_status(be, "program_end", cudaGraphInstantiate(&graph, recorded, 0));
    if (recorded)
        cudaGraphDestroy(recorded);
    if (cuda_failed(be))
        return;
    *add(p) = (struct program){p->recording, graph};
    cuda_check_status(be, "program", cudaGraphLaunch(graph, stream));
}

void cuda_programs_close(struct backend *be)
{
    struct cuda_programs *p = cuda_state(be)->programs;
    if (!p)
        return;
    for (int i = 0; i < p->n; i++)
        cudaGraphExecDestroy(p->program[i].graph);
    free(p->program);
    free(p);
}
