// The places of images in what a model reads.
#pragma once

#include <cstddef>
#include <string>

#include "api/types.h"

namespace ollama::chat {

// What an image takes of a context, as Ollama reckons when it cuts conversations.
inline constexpr std::size_t kImageTokens = 768;

// Where the image of that number stands, from 0 on in a prompt.
std::string image_mark(std::size_t number);

// A message's content with the mark of each of its images: where the text says "[img]", the others
// before it. `images` counts those of the prompt.
std::string content_with_marks(const api::Message& message, std::size_t& images);

}  // namespace ollama::chat
