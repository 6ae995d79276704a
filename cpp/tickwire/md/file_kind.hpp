#pragma once

/// What a file that is no text of ours seems to be, told by how it begins: so that whoever hands the wrong
/// one in is told which it is.

#include <cstddef>
#include <string_view>

namespace tickwire::md {

/// How much of a file's begin file_kind() wants to see: a tar's name stands behind 257 bytes.
inline constexpr std::size_t kFileKindBytes = 264;

/// With what to do about it where that is short to say. Empty where the bytes may be text.
[[nodiscard]] inline std::string_view file_kind(std::string_view head) noexcept {
  struct Magic {
    std::size_t at;
    std::string_view bytes;
    std::string_view name;
  };
  using namespace std::string_view_literals;
  static constexpr Magic kMagic[] = {
      {0, "\xFF\xFE\x00\x00"sv, "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8"},
      {0, "\x00\x00\xFE\xFF"sv, "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8"},
      {0, "\xFF\xFE"sv, "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"},
      {0, "\xFE\xFF"sv, "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"},
      {257, "ustar"sv, "a tar archive; unpack it"},
      {0, "7z\xBC\xAF\x27\x1C"sv, "a 7z archive; unpack it"},
      {0, "Rar!\x1A\x07"sv, "a rar archive; unpack it"},
      {0, "PK\x03\x04"sv, "a zip archive inside another compressed file; unpack it"},
      {0, "\x04\x22\x4D\x18"sv, "an lz4 file; unpack it: lz4 -d"},
      {0, "\x02\x21\x4C\x18"sv, "an lz4 file; unpack it: lz4 -d"},
      {0, "\x5D\x00\x00"sv, "an lzma file; unpack it: xz -d"},
      {0, "\x89LZO\x00"sv, "an lzo file; unpack it: lzop -d"},
      {0, "\xFF\x06\x00\x00sNaPpY"sv, "a snappy file; unpack it"},
      {0, "LZIP\x01"sv, "an lzip file; unpack it: lzip -d"},
      {0, "\x78\x01"sv, "a zlib stream; unpack it: pigz -dz, or zlib.decompress of Python"},
      {0, "\x78\x5E"sv, "a zlib stream; unpack it: pigz -dz, or zlib.decompress of Python"},
      {0, "\x78\x9C"sv, "a zlib stream; unpack it: pigz -dz, or zlib.decompress of Python"},
      {0, "\x78\xDA"sv, "a zlib stream; unpack it: pigz -dz, or zlib.decompress of Python"},
      {0, "\x1F\x9D"sv, "a compress file (.Z); unpack it: gzip -d"},
      {0, "\x1F\x8B"sv, "a gzip file that was compressed twice; unpack it once"},
      {0, "\x28\xB5\x2F\xFD"sv, "a zstd file that was compressed twice; unpack it once"},
      {0,
       "\xFD"
       "7zXZ\x00"sv,
       "an xz file that was compressed twice; unpack it once"},
      {0, "\x0A\x0D\x0D\x0A"sv, "a capture of packets (pcapng): venue nasdaq_itch reads such"},
      {0, "\xA1\xB2\xC3\xD4"sv, "a capture of packets (pcap): venue nasdaq_itch reads such"},
      {0, "\xD4\xC3\xB2\xA1"sv, "a capture of packets (pcap): venue nasdaq_itch reads such"},
      {0, "\xA1\xB2\x3C\x4D"sv, "a capture of packets (pcap): venue nasdaq_itch reads such"},
      {0, "\x4D\x3C\xB2\xA1"sv, "a capture of packets (pcap): venue nasdaq_itch reads such"},
      {0, "BZh"sv, "a bzip2 file that was compressed twice; unpack it once"},
      {0, "!<arch>\n"sv, "an ar archive; unpack it: ar x"},
      {0, "070701"sv, "a cpio archive; unpack it: cpio -i"},
      {0, "MSCF"sv, "a cabinet archive; unpack it"},
      {0, "PAR1"sv, "a Parquet file"},
      {0, "PARE"sv, "an encrypted Parquet file"},
      {0, "ARROW1"sv, "an Arrow file (Feather)"},
      {0, "FEA1"sv, "a Feather file"},
      {0, "\xFF\xFF\xFF\xFF"sv, "an Arrow stream"},
      {0, "ORC"sv, "an ORC file"},
      {0, "\x80\x02"sv, "a pickle of Python"},
      {0, "\x80\x03"sv, "a pickle of Python"},
      {0, "\x80\x04"sv, "a pickle of Python"},
      {0, "\x80\x05"sv, "a pickle of Python"},
      {0, "CDF\x01"sv, "a NetCDF file"},
      {0, "CDF\x02"sv, "a NetCDF file"},
      {0, "MATLAB 5.0 MAT-file"sv, "a MATLAB file"},
      {8, "DUCK"sv, "a DuckDB database"},
      {0, "\x89HDF\x0D\x0A\x1A\x0A"sv, "an HDF5 file"},
      {0, "\x93NUMPY"sv, "a NumPy file"},
      {0, "Obj\x01"sv, "an Avro file"},
      {0, "SQLite format 3\x00"sv, "an SQLite database"},
      {0, "DBN\x01"sv, "a Databento file (DBN)"},
      {0, "DBN\x02"sv, "a Databento file (DBN)"},
      {0, "DBN\x03"sv, "a Databento file (DBN)"},
  };
  for (const Magic& magic : kMagic) {
    if (head.size() >= magic.at + magic.bytes.size() &&
        head.substr(magic.at, magic.bytes.size()) == magic.bytes) {
      return magic.name;
    }
  }
  // Two bytes of a length, then a letter: the first message of a day is twelve bytes long.
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(head[i]); };
  if (head.size() >= 3 && byte(0) == 0 && byte(1) >= 12 && byte(1) <= 50 && byte(2) >= 'A' && byte(2) <= 'Z')
    return "binary messages, as a day file of NASDAQ ITCH has them: venue nasdaq_itch reads such";
  // A text that a crash left zeros in begins like one.
  const bool like_text = !head.empty() && ((byte(0) >= ' ' && byte(0) <= '~') || byte(0) == 0xEF);
  if (!like_text && head.find('\0') != std::string_view::npos) return "binary data";
  return {};
}

}  // namespace tickwire::md
