#pragma once
namespace gloo {}
