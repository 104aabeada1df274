/* Programs: a list of operations recorded once as a CUDA graph, then launched as one. A decode step of a deep model is
 * hundreds of short kernels; launched one by one they would cost more than they run.
 *
 * A program's first run is an ordinary one, the second is recorded. A kernel is loaded, and cuBLASLt starts, when it is first
 * asked for, and drivers before CUDA 12.4 refuse such work while a stream records (error 900).
 */
#include "cuda/ops.h"

#include <stdlib.h>

struct program {
    uint64_t key;
    cudaGraphExec_t graph; /* NULL: run once, not recorded yet */
};

struct cuda_programs {
    struct program *program;
    int n, room;
    struct program *recording; /* between begin and end; NULL: the operations run as they come */
};

static struct cuda_programs *programs_of(struct backend *be)
{
    struct cuda_state *s = cuda_state(be);
    if (!s->programs)
        s->programs = (struct cuda_programs *)calloc(1, sizeof *s->programs);
    CHECK(s->programs, "out of memory");
    return s->programs;
}

static struct program *find(struct cuda_programs *p, uint64_t key)
{
    for (int i = 0; i < p->n; i++)
        if (p->program[i].key == key)
            return &p->program[i];
    return NULL;
}

static void add(struct cuda_programs *p, uint64_t key)
{
    if (p->n == p->room) {
        p->room = p->room ? 2 * p->room : 16;
        p->program = (struct program *)realloc(p->program, (size_t)p->room * sizeof *p->program);
        CHECK(p->program, "out of memory");
    }
    p->program[p->n++] = (struct program){key, NULL};
}

bool cuda_program_begin(struct backend *be, uint64_t key)
{
    struct cuda_programs *p = programs_of(be);
    cudaStream_t stream = cuda_state(be)->stream;
    if (cuda_failed(be))
        return false;
    struct program *known = find(p, key);
    if (known && known->graph) {
        cuda_check_status(be, "program", cudaGraphLaunch(known->graph, stream));
        return false;
    }
    p->recording = known;
    if (known)
        cuda_check_status(be, "program_begin", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    else
        add(p, key);
    return !cuda_failed(be);
}

void cuda_program_end(struct backend *be)
{
    struct cuda_programs *p = programs_of(be);
    cudaStream_t stream = cuda_state(be)->stream;
    cudaGraph_t recorded = NULL;
    cudaGraphExec_t graph = NULL;
    if (!p->recording)
        return;
    cuda_check_status(be, "program_end", cudaStreamEndCapture(stream, &recorded));
    if (!cuda_failed(be))
        cuda_check_status(be, "program_end", cudaGraphInstantiate(&graph, recorded, 0));
    if (recorded)
        cudaGraphDestroy(recorded);
    if (cuda_failed(be))
        return;
    p->recording->graph = graph;
    cuda_check_status(be, "program", cudaGraphLaunch(graph, stream));
}

void cuda_programs_close(struct backend *be)
{
    struct cuda_programs *p = cuda_state(be)->programs;
    if (!p)
        return;
    for (int i = 0; i < p->n; i++)
        if (p->program[i].graph)
            cudaGraphExecDestroy(p->program[i].graph);
    free(p->program);
    free(p);
}
