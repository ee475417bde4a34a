// One batch of prompts through libllama: `llama_driver MODEL ROWS REPEATS < prompts`, a line each: new tokens, then the prompt.
// Continuous batching: a row whose completion ends takes the next prompt. Prints tokens per second of each repeat.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <vector>
#include "llama.h"

struct Request { int fresh; std::vector<llama_token> prompt; };

int main(int argc, char ** argv) {
    if (argc != 4) { std::fprintf(stderr, "usage: llama_driver MODEL ROWS REPEATS < prompts\n"); return 2; }
    const int rows = std::atoi(argv[2]), repeats = std::atoi(argv[3]);
    std::vector<Request> requests;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream in(line);
        Request request{};
        in >> request.fresh;
        for (llama_token token; in >> token;) request.prompt.push_back(token);
        requests.push_back(request);
    }
    size_t longest = 0;
    for (const auto & r : requests) longest = std::max(longest, r.prompt.size() + r.fresh);
    llama_log_set([](ggml_log_level level, const char * text, void *) { if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr); }, nullptr);
    llama_backend_init();
    llama_model_params mp = llama_model_default_params();
    llama_model * model = llama_model_load_from_file(argv[1], mp);
    if (!model) return 1;
    llama_context_params cp = llama_context_default_params();
    cp.n_ctx = rows * ((longest + 255) / 256 * 256);
    cp.n_batch = 2048; cp.n_ubatch = 512; cp.n_seq_max = rows;
    cp.n_threads = cp.n_threads_batch = 2; cp.no_perf = true;
    llama_context * ctx = llama_init_from_model(model, cp);
    if (!ctx) return 1;
    for (int repeat = 0; repeat < repeats; repeat++) {
        llama_memory_clear(llama_get_memory(ctx), true);
        std::vector<llama_sampler *> samplers;
        for (size_t i = 0; i < requests.size(); i++) {
            llama_sampler * chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
            llama_sampler_chain_add(chain, llama_sampler_init_top_k(20));
            llama_sampler_chain_add(chain, llama_sampler_init_top_p(0.95f, 1));
            llama_sampler_chain_add(chain, llama_sampler_init_temp(1.1f));
            llama_sampler_chain_add(chain, llama_sampler_init_dist(i));
            samplers.push_back(chain);
        }
        const auto begin = std::chrono::steady_clock::now();
        struct Row { int request = -1; int done = 0; int position = 0; llama_token next = 0; };
        std::vector<Row> active(rows);
        size_t queued = 0; long tokens = 0; int running = 0;
        llama_batch batch = llama_batch_init(2048, 0, 1);
        auto add = [&](llama_token token, int position, int row, bool logits) {
            int n = batch.n_tokens++;
            batch.token[n] = token; batch.pos[n] = position; batch.n_seq_id[n] = 1; batch.seq_id[n][0] = row; batch.logits[n] = logits;
        };
        while (queued < requests.size() || running) {
            batch.n_tokens = 0;
            std::vector<std::pair<int, int>> ends;
            for (int row = 0; row < rows; row++) {
                Row & r = active[row];
                if (r.request < 0 && queued < requests.size()) {
                    const auto & prompt = requests[queued].prompt;
                    if (batch.n_tokens + (int) prompt.size() + rows > 2048) continue;
                    r = Row{(int) queued++, 0, (int) prompt.size(), 0}; running++;
                    for (size_t i = 0; i < prompt.size(); i++) add(prompt[i], i, row, i + 1 == prompt.size());
                    ends.push_back({row, batch.n_tokens - 1});
                } else if (r.request >= 0) {
                    add(r.next, r.position++, row, true);
                    ends.push_back({row, batch.n_tokens - 1});
                }
            }
            if (llama_decode(ctx, batch)) return 1;
            for (auto [row, index] : ends) {
                Row & r = active[row];
                r.next = llama_sampler_sample(samplers[r.request], ctx, index);
                tokens++;
                if (++r.done == requests[r.request].fresh) {
                    llama_memory_seq_rm(llama_get_memory(ctx), row, -1, -1);
                    r.request = -1; running--;
                }
            }
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        std::printf("%.3f\n", tokens / seconds);
        std::fflush(stdout);
        llama_batch_free(batch);
        for (auto * s : samplers) llama_sampler_free(s);
    }
    return 0;
}
